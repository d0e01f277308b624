"""Differences of means: the supervised, dense finders.

All take rows of states (n, width) at one site, accumulate in float64, and return a `Direction` whose raw_norm is the
length of the difference; its statistics come from `rows` (by default all rows that went in).
Raises, all of them: DataError if a side is empty, if the difference vanishes or rows are not finite; ShapeError if the
two sides differ in width.
"""

from collections.abc import Hashable, Sequence
from dataclasses import replace

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from overtone.core.batch import require_finite
from overtone.core.errors import DataError, SettingError, ShapeError
from overtone.core.sites import Site
from overtone.directions.direction import Direction, unit_direction


def mean_difference(
    positive: Float[Tensor, "n_positive width"],
    negative: Float[Tensor, "n_negative _"],
    site: Site | str,
    *,
    model: str = "",
    name: str = "mean difference",
    rows: Tensor | None = None,
) -> Direction:
    """mean(positive) - mean(negative): points from the negative to the positive class.

    Source: the classic; contrastive activation addition (arXiv 2312.06681) is the same with as many pairs on each side.
    """
    vector = _mean(positive, "positive") - _mean(negative, "negative", positive.shape[1])
    origin = {"how": "mean_difference", "n_positive": len(positive), "n_negative": len(negative)}
    rows = torch.cat([positive, negative]) if rows is None else rows
    return unit_direction(vector, site, model=model, rows=rows, name=name, origin=origin)


def matched_mean_difference(
    rows: Float[Tensor, "rows width"],
    is_positive: Bool[Tensor, " rows"],
    strata: Sequence[Hashable],
    site: Site | str,
    *,
    weights: str = "precision",
    model: str = "",
    name: str = "matched mean difference",
) -> Direction:
    """The mean difference within each stratum, averaged over strata: what the strata explain cannot leak into it.

    strata: one label per row, such as the kind of the step just written. weights: "precision" (n+ n- / (n+ + n-), the
    inverse variance of a difference of means), "positive" (n+: the effect on the positives) or "equal". Strata with
    one side only are left out and counted in the origin. Raises DataError if no stratum has both sides.
    """
    _check_weights(weights, len(strata), len(rows))
    total, sum_of_weights, used, left_out = torch.zeros(rows.shape[1], dtype=torch.float64), 0.0, {}, []
    for stratum, indices in _members(strata).items():
        here, mask = rows[indices], is_positive[indices]
        n_pos, n_neg = int(mask.sum()), int((~mask).sum())
        if not n_pos or not n_neg:
            left_out.append(str(stratum))
            continue
        weight = {"precision": n_pos * n_neg / (n_pos + n_neg), "positive": float(n_pos), "equal": 1.0}[weights]
        total += weight * (_mean(here[mask], "positive") - _mean(here[~mask], "negative"))
        sum_of_weights, used[str(stratum)] = sum_of_weights + weight, [n_pos, n_neg]
    if not used:
        raise DataError("no stratum holds both positive and negative rows. Use coarser strata, or mean_difference.")
    origin = {"how": "matched_mean_difference", "weights": weights, "strata": used, "left_out": left_out}
    return unit_direction(total / sum_of_weights, site, model=model, rows=rows, name=name, origin=origin)


def seal(
    rows: Float[Tensor, "rows width"],
    labels: Sequence[str | None],
    site: Site | str,
    *,
    positive: Sequence[str] = ("execution",),
    negative: Sequence[str] = ("reflection", "transition"),
    model: str = "",
    name: str = "SEAL",
) -> Direction:
    """SEAL's vector: mean state before execution steps minus mean state before reflection and transition steps.

    rows: states at the delimiter BEFORE each step (anchor `next`); labels: the kind of the step that follows, None to
    skip it. Adding it suppresses reflection (the paper's sign; its script stores the opposite vector and multiplies
    by -1). The paper's strength is Strength(1, "raw"). The statistics come from all labelled rows.
    Source: Chen et al. 2025, arXiv 2504.07986.
    """
    kinds = list(labels)
    if len(kinds) != len(rows):
        raise ShapeError(f"{len(kinds)} labels for {len(rows)} rows. Give one label, or None, for each row.")
    pos, neg, known = (
        torch.tensor([k in chosen if chosen is not None else k is not None for k in kinds], dtype=torch.bool)
        for chosen in (positive, negative, None)
    )
    found = mean_difference(rows[pos], rows[neg], site, model=model, name=name, rows=rows[known])
    origin = {**found.origin, "how": "seal", "positive": list(positive), "negative": list(negative)}
    return replace(found, origin=origin)


def _mean(rows: Tensor, side: str, width: int | None = None) -> Tensor:
    if rows.shape[0] == 0:
        raise DataError(f"the {side} side has no rows; a mean needs at least one. Check the labels and the selection.")
    if width is not None and rows.shape[1] != width:
        raise ShapeError(f"the {side} side has width {rows.shape[1]}, the other {width}. Read both at the same site.")
    return require_finite(rows, f"{side} rows").to("cpu", torch.float64).mean(0)


def _members(strata: Sequence[Hashable]) -> dict[Hashable, list[int]]:
    members: dict[Hashable, list[int]] = {}
    for i, stratum in enumerate(strata):
        members.setdefault(stratum, []).append(i)
    return members


def _check_weights(weights: str, n_strata: int, n_rows: int) -> None:
    if weights not in ("precision", "positive", "equal"):
        raise SettingError(f"weights={weights!r}: use precision, positive or equal.")
    if n_strata != n_rows:
        raise ShapeError(f"{n_strata} strata for {n_rows} rows. Give one stratum for each row.")
