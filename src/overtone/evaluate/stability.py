"""Do two runs find the same atoms? One-to-one matching of two dictionaries by cosine."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from overtone.evaluate.recovery import cosines_between


@dataclass(frozen=True)
class Agreement:
    """Matched pairs of atoms: first, second: indices into the two dictionaries; cosines of the pairs; mean: their mean;
    share: share above `threshold`. In [0, 1], or [-1, 1] when signs count."""

    first: tuple[int, ...]
    second: tuple[int, ...]
    cosines: tuple[float, ...]
    mean: float
    share: float
    threshold: float


def agreement(first: Any, second: Any, *, threshold: float = 0.9, signed: bool = True) -> Agreement:
    """Match two dictionaries' atoms, (n, width) and (m, width), one to one so that the sum of cosines is largest
    (Hungarian method); min(n, m) pairs.

    signed=False matches up to sign. The time grows with the cube of the number of atoms: about 0.1 s for 640, some
    seconds for 4,000. Raises ShapeError if the widths differ or either side is empty.
    """
    from scipy.optimize import linear_sum_assignment

    cosines = cosines_between(first, second)
    cosines = cosines if signed else np.abs(cosines)
    rows, columns = linear_sum_assignment(cosines, maximize=True)
    best = cosines[rows, columns]
    share = float((best > threshold).mean())
    return Agreement(
        tuple(rows.tolist()), tuple(columns.tolist()), tuple(best.tolist()), float(best.mean()), share, threshold
    )
