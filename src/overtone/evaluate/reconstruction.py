"""How well codes give back their input: unexplained share (FVU), cosine, L0, dead latents.

Arguments `x` and `x_hat` are (rows, width) tensors or arrays in the same units; sums run in float64.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from overtone.core.errors import DataError, ShapeError
from overtone.interpret.columns import as_columns, to_numpy


@dataclass(frozen=True)
class ReconstructionQuality:
    """fvu: see `fvu`; cosine: mean over rows, [-1, 1]; l0: mean number of active latents per row, [0, latents];
    dead_share: share of latents active in no row, [0, 1]; n_rows."""

    fvu: float
    cosine: float
    l0: float
    dead_share: float
    n_rows: int


def reconstruction(x: Any, x_hat: Any, codes: Any) -> ReconstructionQuality:
    """All measures of this file for inputs, their reconstructions and their codes (rows, latents).

    Raises ShapeError if shapes differ, DataError if the input has no variance or holds NaN.
    """
    return ReconstructionQuality(fvu(x, x_hat), mean_cosine(x, x_hat), l0(codes), dead_share(codes), len(x))


def fvu(x: Any, x_hat: Any) -> float:
    """Share of the variance of x that x_hat misses: sum ||x - x_hat||^2 / sum ||x - mean(x)||^2.

    Dimensionless: 0 is perfect, 1 is no better than the mean row; it can exceed 1. Raises ShapeError if shapes differ
    or there are fewer than two rows, DataError if x does not vary or a value is not finite.
    """
    x, x_hat = _pair(x, x_hat)
    if len(x) < 2:
        raise ShapeError(f"{len(x)} row: the variance needs at least two rows. Evaluate on more rows.")
    spread = float(((x - x.mean(axis=0)) ** 2).sum())
    if spread == 0:
        raise DataError("all rows of x are equal, so there is no variance to explain. Evaluate on other rows.")
    return float(((x - x_hat) ** 2).sum()) / spread


def mean_cosine(x: Any, x_hat: Any) -> float:
    """Mean over rows of the cosine between x and x_hat, in [-1, 1]; a row of norm 0 counts as 0.

    Raises ShapeError if shapes differ, DataError if a value is not finite.
    """
    x, x_hat = _pair(x, x_hat)
    norms = np.linalg.norm(x, axis=1) * np.linalg.norm(x_hat, axis=1)
    return float(np.divide((x * x_hat).sum(axis=1), norms, out=np.zeros_like(norms), where=norms > 0).mean())


def l0(codes: Any) -> float:
    """Mean number of active (non-zero) latents per row, in [0, latents]; measured, not the target k."""
    columns = as_columns(codes)
    return columns.nnz / columns.shape[0]


def dead_share(codes: Any) -> float:
    """Share of latents that are active in none of the rows, in [0, 1]; it falls as more rows are looked at."""
    columns = as_columns(codes)
    return float((np.diff(columns.indptr) == 0).mean())


def _pair(x: Any, x_hat: Any) -> tuple[np.ndarray, np.ndarray]:
    x, x_hat = to_numpy(x).astype(np.float64), to_numpy(x_hat).astype(np.float64)
    if x.shape != x_hat.shape or x.ndim != 2 or not len(x):
        raise ShapeError(f"x {x.shape} and x_hat {x_hat.shape} must both be (rows, width) with the same sizes.")
    if not (np.isfinite(x).all() and np.isfinite(x_hat).all()):
        raise DataError("x or x_hat holds NaN or infinity. Collect activations in float32 or bfloat16.")
    return x, x_hat
