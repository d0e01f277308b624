"""Length structure: in how long traces does each latent fire? (RISE, arXiv 2512.23988, section G.)

A trace of more steps gives every latent more chances to fire, so the mean length of the traces in which a latent fires
exceeds the overall mean even if it fires at random. `expected` is what random firing at the latent's own rate would
give; `excess` is what is left.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from overtone.core.errors import DataError
from overtone.interpret.columns import as_columns, same_rows, to_numpy


@dataclass(frozen=True, eq=False)
class LengthProfile:
    """Per latent, all of shape (latents,) and in the unit of the lengths: mean_length of the traces in which it fires
    (NaN if in fewer than n_min), expected under random firing, excess = mean_length - expected; n_traces: traces in
    which it fires; overall: mean length of all traces."""

    mean_length: np.ndarray
    expected: np.ndarray
    excess: np.ndarray
    n_traces: np.ndarray
    overall: float

    def sides(self) -> list[str | None]:
        """ "long" for latents of positive excess, "short" for the others, None where it is not known: the two classes
        whose silhouette is tested."""
        return [None if np.isnan(e) else "long" if e > 0 else "short" for e in self.excess]


def length_profile(codes: Any, document: Any, lengths: dict[int, float], *, n_min: int = 10) -> LengthProfile:
    """Lengths of the traces in which each latent fires, each trace counted once.

    codes: (rows, latents), one row per step; document: (rows,) trace of each row; lengths: length of every trace, in
    tokens or steps. Raises DataError if a trace has no length, ShapeError if the rows do not match.
    """
    columns, document = as_columns(codes), to_numpy(document)
    same_rows(columns, document, "documents")
    names, place = np.unique(document, return_inverse=True)
    missing = [int(d) for d in names if int(d) not in lengths]
    if missing:
        raise DataError(f"{len(missing)} traces have no length, such as trace {missing[0]}. Give one for every trace.")
    length = np.array([lengths[int(d)] for d in names], dtype=np.float64)
    fired = _fired(columns, place, len(names))
    n_traces = fired.sum(axis=0)
    enough = n_traces >= n_min
    mean = np.divide(length @ fired, n_traces, out=np.full(len(n_traces), np.nan), where=enough)
    rate = np.diff(columns.indptr) / columns.shape[0]
    chance = 1 - (1 - rate[None]) ** np.bincount(place)[:, None]
    expected = np.divide(length @ chance, chance.sum(axis=0), out=np.full(len(n_traces), np.nan), where=enough)
    return LengthProfile(mean, expected, mean - expected, n_traces.astype(np.int64), float(length.mean()))


def _fired(columns: Any, place: np.ndarray, n_traces: int) -> np.ndarray:
    """1.0 where a latent is active somewhere in a trace: (traces, latents)."""
    fired = np.zeros((n_traces, columns.shape[1]))
    latent = np.repeat(np.arange(columns.shape[1]), np.diff(columns.indptr))
    fired[place[columns.indices], latent] = 1.0
    return fired
