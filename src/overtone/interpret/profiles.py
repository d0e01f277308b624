"""Which behaviour a latent stands for: profiles over labelled steps, purity, and the latents specific to one behaviour.

P[c, j] = share of the steps labelled c whose `top_m` strongest latents include j (strength is |code|, so signed codes
count on both sides; `columns.two_sided` keeps the sides apart). label(j) = the class c of largest P[c, j], purity(j) =
P[label, j] / sum_c P[c, j]. Classes weigh equally, however often they occur. Source: RISE (arXiv 2512.23988), sections
C and E; the exact rule is this project's.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from overtone.core.errors import DataError, SettingError
from overtone.interpret.columns import as_columns, same_rows

if TYPE_CHECKING:
    from scipy.sparse import csc_array


@dataclass(frozen=True, eq=False)
class Profiles:
    """What labelled steps say of every latent.

    names: classes; share: P, (classes, latents) in [0, 1]; fires: (latents,) labelled steps in which the latent is
    active; leads: (latents,) those in which it is among the strongest; strength: (latents,) mean |code| where
    active, in code units (0 if never); labels: per latent its class, or None if it fires on fewer than n_min steps
    or never leads; purity: (latents,) in [1 / classes, 1], NaN where labels is None; n_rows: labelled steps.
    """

    names: tuple[str, ...]
    share: np.ndarray
    fires: np.ndarray
    leads: np.ndarray
    strength: np.ndarray
    labels: tuple[str | None, ...]
    purity: np.ndarray
    n_rows: int

    def of(self, name: str) -> list[int]:
        """The latents labelled `name`, those that lead most of its steps first. Raises SettingError for unknown
        names."""
        if name not in self.names:
            raise SettingError(f"{name!r} is not among the labels {', '.join(self.names)}.")
        row = self.share[self.names.index(name)]
        return sorted((j for j, label in enumerate(self.labels) if label == name), key=lambda j: (-row[j], j))


def profile(
    codes: Any,
    labels: Sequence[str | None],
    *,
    names: Sequence[str] | None = None,
    top_m: int = 1,
    n_min: int = 10,
) -> Profiles:
    """Profiles of all latents from codes (rows, latents) and one label, or None, per row.

    names: classes to use, default all labels, sorted; rows with other labels are left out. Ties for a place among the
    strongest go to the lower index. Raises DataError if no row is labelled, ShapeError if the rows do not match,
    SettingError for top_m < 1.
    """
    columns = as_columns(codes)
    same_rows(columns, labels)
    if top_m < 1:
        raise SettingError(f"top_m={top_m}; at least the strongest latent of a step must count. Use 1 or more.")
    classes = tuple(names or sorted({label for label in labels if label is not None}))
    kept = [i for i, label in enumerate(labels) if label in classes]
    if not kept:
        raise DataError("no row has a label. Check that labels and codes come from the same traces.")
    rows = abs(columns.tocsr()[kept])
    member = np.array([[labels[i] == name for name in classes] for i in kept], dtype=np.float64)
    leading = _leading(rows, top_m)
    share = np.asarray(leading.T @ member).T / np.maximum(member.sum(axis=0), 1)[:, None]
    fires, leads = np.diff(rows.tocsc().indptr), np.asarray(leading.sum(axis=0)).ravel().astype(np.int64)
    strength = np.asarray(rows.sum(axis=0)).ravel() / np.maximum(fires, 1)
    told = (fires >= n_min) & (leads > 0)
    purity = np.where(told, share.max(axis=0) / np.maximum(share.sum(axis=0), 1e-12), np.nan)
    named = tuple(classes[c] if ok else None for c, ok in zip(share.argmax(axis=0), told, strict=True))
    return Profiles(classes, share, fires, leads, strength, named, purity, len(kept))


def _leading(rows: Any, top_m: int) -> csc_array:
    """1 where a latent is among the top_m strongest of its row: (rows, latents). rows: CSR of sizes |code|."""
    from scipy.sparse import csc_array

    place = np.repeat(np.arange(rows.shape[0]), np.diff(rows.indptr))
    order = np.lexsort((rows.indices, -rows.data, place))
    rank = np.arange(len(order)) - np.repeat(rows.indptr[:-1], np.diff(rows.indptr))
    best = order[rank < top_m]
    return csc_array((np.ones(len(best)), (place[best], rows.indices[best])), shape=rows.shape)


def specific(
    profiles: Profiles, name: str, *, min_purity: float = 0.5, max_second: float = 0.5, most: int | None = None
) -> list[int]:
    """The latents that stand for one behaviour only, those that lead most of its steps first.

    Kept: label `name`, purity of at least min_purity, and a second-best class whose share is at most max_second times
    the best one's (RISE drops columns that are strong for more than one behaviour; it gives no threshold). most: keep
    that many. Raises SettingError for an unknown name.
    """
    chosen = []
    for j in profiles.of(name):
        second, first = np.sort(profiles.share[:, j])[-2:] if len(profiles.names) > 1 else (0.0, 1.0)
        if profiles.purity[j] >= min_purity and second <= max_second * first:
            chosen.append(j)
    return chosen[:most]


def matched_contrast(codes: Any, labels: Sequence[str | None], strata: Sequence[Any], name: str) -> np.ndarray:
    """How much more active each latent is where `name` comes, compared within strata: z-scores, (latents,).

    strata: one entry per row, such as the kind of the step just written; what they explain cannot make a latent look
    telling. z = sum_s w_s (mean of positives - mean of others) / sqrt(sum_s w_s^2 (var / n+ + var / n-)), with w_s =
    n+ n- / (n+ + n-) and the variance pooled within each stratum; 0 for a latent that does not vary. Rows without a
    label are left out. Raises DataError if no stratum holds both sides, ShapeError if the rows do not match.
    """
    columns = as_columns(codes).tocsr()
    same_rows(columns, labels)
    same_rows(columns, strata, "strata")
    places: dict[Any, list[int]] = {}
    for i, label in enumerate(labels):
        if label is not None:
            places.setdefault(strata[i], []).append(i)
    total, variance = np.zeros(columns.shape[1]), np.zeros(columns.shape[1])
    for rows in places.values():
        is_one = np.array([labels[i] == name for i in rows])
        n, p = len(rows), int(is_one.sum())
        if not 0 < p < n:
            continue
        here = columns[rows].toarray().astype(np.float64)
        w = p * (n - p) / n
        total += w * (here[is_one].mean(axis=0) - here[~is_one].mean(axis=0))
        variance += w**2 * here.var(axis=0) * (1 / p + 1 / (n - p))
    if not variance.any():
        raise DataError(f"no stratum holds steps of {name!r} and others. Use coarser strata.")
    return np.divide(total, np.sqrt(variance), out=np.zeros_like(total), where=variance > 0)
