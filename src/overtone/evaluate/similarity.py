"""Do two models, or two layers, represent the same things? By the places their dictionaries are made of, and by their
states.

Sources: label overlap: ITDA, arXiv 2505.17769; linear CKA: Kornblith et al. 2019, arXiv 1905.00414; SVCCA: Raghu et al.
2017, arXiv 1706.05806; relative representations: Moschella et al. 2022, arXiv 2209.15430. The benchmark, matching the
layers of two trainings of one architecture, is Kornblith's.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np

from overtone.core.errors import DataError, ShapeError
from overtone.interpret.columns import to_numpy


@dataclass(frozen=True)
class Overlap:
    """jaccard: shared places over all places, in [0, 1]; chance: what two random sets of these sizes would share."""

    jaccard: float
    chance: float


def label_overlap(first: AbstractSet[Any], second: AbstractSet[Any], *, n_rows: int) -> Overlap:
    """How much two sets of places overlap that were chosen among the same n_rows rows. Of whole models: give the union
    of what their layers' dictionaries chose, `set().union(*(d.places() for d in layers))`, as the authors' code does.

    Raises DataError if both are empty or there are fewer rows than places.
    """
    union = len(first | second)
    if not union or n_rows < union:
        raise DataError(f"{len(first)} and {len(second)} places among {n_rows} rows: give those of two dictionaries.")
    shared = len(first) * len(second) / n_rows
    return Overlap(len(first & second) / union, shared / (len(first) + len(second) - shared))


def cka(x: Any, y: Any) -> float:
    """Linear centred kernel alignment of two sets of states of the same rows, in [0, 1]: 1 if one is the other rotated,
    scaled and shifted.

    x: (rows, width), y: (rows, another width). Raises ShapeError unless rows match, DataError if one does not vary.
    """
    x, y = _centred(x, y)
    return float(np.square(x.T @ y).sum() / (np.linalg.norm(x.T @ x) * np.linalg.norm(y.T @ y)))


def svcca(x: Any, y: Any, *, keep: float = 0.99) -> float:
    """Mean canonical correlation of the leading singular directions that hold `keep` of each side's variance, in [0,
    1].

    Arguments and errors as for `cka`. Invariant to any invertible linear map only as far as `keep` keeps everything.
    """
    bases = []
    for side in _centred(x, y):
        left, values, _ = np.linalg.svd(side, full_matrices=False)
        share = np.cumsum(values**2) / (values**2).sum()
        bases.append(left[:, : int(np.searchsorted(share, keep)) + 1])
    correlations = np.linalg.svd(bases[0].T @ bases[1], compute_uv=False)
    return float(np.clip(correlations, 0, 1).mean())


def relative(x: Any, y: Any, *, anchors: int = 300) -> float:
    """Mean cosine of the two relative representations of a row, which are its cosines to the same other rows on either
    side, in [-1, 1]: 1 if one side is the other rotated, scaled and shifted, about 0 if they are unrelated.

    anchors: those other rows, evenly spread and at most half of all; similarities are of the rest. Arguments and errors
    as for `cka`. Source: arXiv 2209.15430, but that states are centred first, as for the other measures. A row that is
    the mean row counts as 0.
    """
    sides = []
    for side in _centred(x, y):
        units, at = _units(side), np.linspace(0, len(side) - 1, min(anchors, len(side) // 2)).astype(int)
        sides.append(_units(np.delete(units, at, axis=0) @ units[at].T))
    return float((sides[0] * sides[1]).sum(1).mean())


def matched_layers(scores: np.ndarray) -> float:
    """Share of layers whose best partner is the layer of the same number, in [0, 1]; scores[i, j]: similarity of layer
    i of one model and j of the other. Both models choose: rows and columns count alike."""
    right = np.arange(len(scores))
    return float(np.mean([scores.argmax(1) == right, scores.argmax(0) == right]))


def layer_scores(first: Sequence[Any], second: Sequence[Any], measure: Callable[[Any, Any], float]) -> np.ndarray:
    """(layers, layers) similarities of every layer of one model and every layer of another."""
    return np.array([[measure(a, b) for b in second] for a in first])


def matched_by_pair(models: Sequence[Sequence[Any]], measure: Callable[[Any, Any], float]) -> list[float]:
    """`matched_layers` for every pair of models, each given as what `measure` takes of every layer."""
    return [matched_layers(layer_scores(a, b, measure)) for a, b in combinations(models, 2)]


MEASURES: Mapping[str, Callable[[Any, Any], float]] = {"cka": cka, "svcca": svcca, "relative": relative}


def _units(rows: np.ndarray) -> np.ndarray:
    lengths = np.linalg.norm(rows, axis=1, keepdims=True)
    return np.divide(rows, lengths, out=np.zeros_like(rows), where=lengths > 0)


def _centred(x: Any, y: Any) -> tuple[np.ndarray, np.ndarray]:
    x, y = to_numpy(x).astype(np.float64), to_numpy(y).astype(np.float64)
    if x.ndim != 2 or y.ndim != 2 or len(x) != len(y) or len(x) < 2:
        raise ShapeError(f"{x.shape} and {y.shape}: give states of the same rows, (rows, width) each.")
    x, y = x - x.mean(0), y - y.mean(0)
    if not (x.any() and y.any()):
        raise DataError("one side does not vary over the rows, so it resembles nothing. Use other rows.")
    return x, y
