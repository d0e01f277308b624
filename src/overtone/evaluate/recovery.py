"""Planted truth: does a dictionary find the atoms that made the data?

MMCS (mean of maximum cosines) follows Sharkey et al. 2022, "Taking features out of superposition with sparse
autoencoders"; the share above a threshold is the check of RISE's recovery theorem (arXiv 2512.23988).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from overtone.core.errors import ShapeError
from overtone.interpret.columns import to_numpy


@dataclass(frozen=True)
class Recovery:
    """best: per planted atom, the cosine of the nearest learned atom; mmcs: their mean; share: share of them above
    `threshold`; all in [0, 1] (in [-1, 1] when signs count)."""

    best: tuple[float, ...]
    mmcs: float
    share: float
    threshold: float


def planted_recovery(atoms: Any, truth: Any, *, threshold: float = 0.95, signed: bool = False) -> Recovery:
    """How near the learned atoms (latents, width) come to the planted ones (planted, width); neither need be unit.

    signed=False compares directions up to sign (max |cos|). Atoms of norm 0 match nothing. Raises ShapeError if the
    widths differ or either side is empty.
    """
    cosines = cosines_between(truth, atoms)
    best = (cosines if signed else np.abs(cosines)).max(axis=1)
    return Recovery(tuple(best.tolist()), float(best.mean()), float((best > threshold).mean()), threshold)


def cosines_between(a: Any, b: Any) -> np.ndarray:
    """Cosines of all rows of two (atoms, width) arrays: (first, second) float64; 0 where a norm is 0.

    Raises ShapeError if the widths differ or either side is empty.
    """
    a, b = to_numpy(a).astype(np.float64), to_numpy(b).astype(np.float64)
    if a.ndim != 2 or b.ndim != 2 or a.shape[1] != b.shape[1] or not len(a) or not len(b):
        raise ShapeError(f"atoms {a.shape} and {b.shape} must be (atoms, width) with one width.")
    norms = np.linalg.norm(a, axis=1)[:, None] * np.linalg.norm(b, axis=1)[None]
    return np.divide(a @ b.T, norms, out=np.zeros_like(norms), where=norms > 0)
