"""Principal components as directions: of rows, or of differences within pairs.

Source: representation reading (arXiv 2310.01405) uses centred differences; uncentred ones keep the mean difference,
which centring can lose.
"""

import torch
from jaxtyping import Float
from torch import Tensor

from overtone.core.batch import require_finite
from overtone.core.errors import DataError, ShapeError
from overtone.core.sites import Site
from overtone.directions.direction import Direction, unit_direction


def principal_components(
    rows: Float[Tensor, "rows width"],
    n: int,
    site: Site | str,
    *,
    centred: bool = True,
    model: str = "",
    name: str = "component",
) -> list[Direction]:
    """The n leading principal directions of rows, by decreasing share of the squared length they explain.

    centred: subtract the mean row first. The sign is by majority: at least half of the rows project to the positive
    side of zero (of the mean row, when centred). The origin holds `explained`, the share in [0, 1]; raw_norm is the
    singular value. Raises DataError unless 1 <= n <= min(rows, width) and the rows are finite and not all equal.
    """
    x = require_finite(rows, "rows").to("cpu", torch.float64)
    if not 1 <= n <= min(x.shape):
        raise DataError(
            f"n={n} components of {x.shape[0]} rows of width {x.shape[1]}: use 1 to {min(x.shape, default=0)}."
        )
    x = x - x.mean(0) if centred else x
    _, s, vectors = torch.linalg.svd(x, full_matrices=False)
    if float(s[0]) == 0.0:
        raise DataError("all rows are equal; nothing varies along any direction. Give rows that differ.")
    found = []
    for i in range(n):
        v = vectors[i] * (1.0 if float(((x @ vectors[i]) > 0).double().mean()) >= 0.5 else -1.0)
        share = float(s[i] ** 2 / (s**2).sum())
        origin = {
            "how": "principal_components",
            "index": i,
            "centred": centred,
            "explained": share,
            "n_rows": len(rows),
        }
        found.append(unit_direction(v * s[i], site, model=model, rows=rows, name=f"{name} {i}", origin=origin))
    return found


def principal_of_pairs(
    positive: Float[Tensor, "pairs width"],
    negative: Float[Tensor, "_ _"],
    site: Site | str,
    *,
    centred: bool = False,
    model: str = "",
    name: str = "principal difference",
) -> Direction:
    """The first principal direction of positive - negative, pair by pair; the positive member projects higher in most
    pairs.

    centred=True is representation reading's choice; it fails where the differences vary more along something else
    than their mean. Statistics come from all rows. Raises ShapeError if the sides differ in shape, DataError if there
    is no pair.
    """
    if positive.shape != negative.shape:
        raise ShapeError(f"pairs need two sides of one shape, got {tuple(positive.shape)} and {tuple(negative.shape)}.")
    deltas = positive.to("cpu", torch.float64) - negative.to("cpu", torch.float64)
    found = principal_components(deltas, 1, site, centred=centred, model=model, name=name)[0]
    v = found.vector if float(((deltas @ found.vector.double()) > 0).double().mean()) >= 0.5 else -found.vector
    origin = {**found.origin, "how": "principal_of_pairs"}
    rows = torch.cat([positive, negative])
    return unit_direction(v.double() * found.raw_norm, site, model=model, rows=rows, name=name, origin=origin)
