"""Codes seen column by column: one sparse matrix, whatever the codes came as.

Everything that describes latents reads their columns. Accepted codes: sparse codes with `values` and `indices` of shape
(rows, active) and `n_latents` (unused slots hold value 0), a dense (rows, latents) tensor or array (PCA coordinates,
probe scores), or a scipy sparse matrix. Values may be negative.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from overtone.core.errors import DataError, ShapeError


def to_numpy(x: Any) -> np.ndarray:
    """A numpy array of a tensor (detached, moved to the CPU) or of anything numpy understands; no copy where
    possible."""
    if hasattr(x, "detach"):
        x = x.detach().cpu()
        x = x.float() if str(x.dtype) == "torch.bfloat16" else x
        return x.numpy()
    return np.asarray(x)


def as_columns(codes: Any) -> Any:
    """The codes as a (rows, latents) scipy CSC matrix without stored zeros; float32 (float64 stays float64).

    Raises ShapeError if the codes are not two-dimensional and DataError if a value is NaN or infinite or an index lies
    outside [0, n_latents).
    """
    from scipy.sparse import csc_array, issparse

    if issparse(codes):
        columns = csc_array(codes, copy=True)
    elif hasattr(codes, "n_latents"):
        columns = _from_slots(to_numpy(codes.values), to_numpy(codes.indices), int(codes.n_latents))
    else:
        dense = to_numpy(codes)
        if dense.ndim != 2:
            raise ShapeError(f"codes must be (rows, latents), got {dense.shape}. Reshape one column to (rows, 1).")
        columns = csc_array(dense)
    if not np.isfinite(columns.data).all():
        raise DataError("the codes hold NaN or infinity. Encode finite activations (see the dictionary's encode).")
    columns.eliminate_zeros()
    columns.sort_indices()
    return columns


def _from_slots(values: np.ndarray, indices: np.ndarray, n_latents: int) -> Any:
    from scipy.sparse import coo_array

    if values.shape != indices.shape or values.ndim != 2:
        raise ShapeError(f"values {values.shape} and indices {indices.shape} must both be (rows, active).")
    row, slot = np.nonzero(values)
    column = indices[row, slot]
    if column.size and not (column.min() >= 0 and column.max() < n_latents):
        raise DataError(f"an index of the codes lies outside [0, {n_latents}). Give the codes of this dictionary.")
    return coo_array((values[row, slot], (row, column)), shape=(values.shape[0], n_latents)).tocsc()


def two_sided(codes: Any) -> Any:
    """Codes with each latent's two signs as two non-negative latents: (rows, 2 x latents), the positive parts first.

    Latent j of the result is the side +j for j < latents, and the side -(j - latents) after that, so its atom is
    `atoms[j]` or `-atoms[j - latents]`. For signed dictionaries (AbsTopK, PCA), whose two sides may mean two things.
    """
    from scipy.sparse import csc_array, hstack

    columns = as_columns(codes)
    both = csc_array(hstack([columns.maximum(0), (-columns).maximum(0)]))
    both.eliminate_zeros()
    return both


def same_rows(columns: Any, labels: Any, what: str = "labels") -> None:
    """Raise ShapeError unless there is one entry of `labels` for each row of `columns`."""
    if columns.shape[0] != len(labels):
        raise ShapeError(f"{columns.shape[0]} rows of codes but {len(labels)} {what}. Give one for each row.")
