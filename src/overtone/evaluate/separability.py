"""How well classes are told apart: AUROC of scores, cosine silhouette of points, each with its null.

AUROC: chance that a random positive scores above a random negative, ties counted half; range [0, 1], 0.5 is chance.
Silhouette (Rousseeuw 1987): s = (b - a) / max(a, b), a: mean distance to the own class, b: to the nearest other one;
range [-1, 1], 0 is chance only on average, so it always comes with a permutation null.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np

from overtone.core.errors import DataError, ShapeError
from overtone.evaluate.intervals import Estimate, Resampling, ratio
from overtone.interpret.columns import as_columns, same_rows, to_numpy

CHUNK = 8_000_000  # numbers held at once by the vectorised nulls: 64 MB


# --------------------------------------------------------------------------------------------------------------- AUROC
def auroc(scores: Any, positive: Any) -> float:
    """AUROC of scores (rows,) for positive (rows,) booleans, in [0, 1]; -scores has 1 minus it.

    Raises DataError if there is no positive or no negative row, or a score is not finite.
    """
    scores, positive = to_numpy(scores), to_numpy(positive).astype(bool)
    if scores.ndim != 1 or scores.shape != positive.shape:
        raise ShapeError(f"scores {scores.shape} and positive {positive.shape} must both be (rows,).")
    value = float(auroc_table(scores[:, None], positive[:, None])[0, 0])
    if np.isnan(value):
        raise DataError(
            f"{int(positive.sum())} of {len(positive)} rows are positive; AUROC needs both kinds. Get more rows."
        )
    return value


def auroc_table(codes: Any, members: Any) -> np.ndarray:
    """AUROC of every latent for every class, from ranks: (latents, classes) float64.

    codes: anything `interpret.columns` accepts, (rows, latents); members: (rows, classes) booleans. NaN for a class
    without members or without others. Raises ShapeError if the rows do not match.
    """
    columns, members = as_columns(codes), to_numpy(members).astype(np.float64)
    same_rows(columns, members, "rows of members")
    ranks, zero_ranks = _ranks(columns)
    n = members.sum(axis=0)
    rank_sums = ranks.T @ members + zero_ranks[:, None] * n[None]
    return ratio(rank_sums - n * (n + 1) / 2, np.broadcast_to(n * (len(members) - n), rank_sums.shape))


def _ranks(columns: Any) -> tuple[Any, np.ndarray]:
    """Average ranks (from 1) within each column, stored as differences from the rank that its zeros share.

    Most codes are zero: only what is not is sorted.
    """
    rows, data = columns.shape[0], np.empty(columns.nnz)
    zero_ranks = np.empty(columns.shape[1])
    for j, (start, end) in enumerate(zip(columns.indptr[:-1], columns.indptr[1:], strict=True)):
        values = columns.data[start:end]
        below, zeros = int((values < 0).sum()), rows - len(values)
        zero_ranks[j] = below + (zeros + 1) / 2
        order = np.argsort(values)
        ordered = values[order]
        new = np.flatnonzero(np.r_[True, ordered[1:] != ordered[:-1]])[: len(values)]
        sizes = np.diff(np.r_[new, len(values)])
        average = np.repeat(new + (sizes + 1) / 2, sizes)
        data[start:end][order] = average + np.where(ordered > 0, zeros, 0) - zero_ranks[j]
    from scipy.sparse import csc_array

    return csc_array((data, columns.indices, columns.indptr), shape=columns.shape), zero_ranks


def auroc_estimate(scores: Any, positive: Any, groups: Sequence[Any], resampling: Resampling) -> Estimate:
    """AUROC of scores (rows,) with a bootstrap interval over groups (rows,): each row counts as often as its group is
    drawn. Raises as `auroc` does, and DataError for a group that was not resampled."""
    scores, positive = to_numpy(scores), to_numpy(positive).astype(bool)
    auroc(scores, positive)
    order = np.argsort(scores, kind="stable")
    starts = np.flatnonzero(np.r_[True, np.diff(scores[order]) != 0])
    place, good, series = resampling.positions(groups)[order], positive[order], []
    for part in np.array_split(resampling.weights, 1 + resampling.weights.shape[0] * len(scores) // CHUNK):
        weights = part[:, place]
        ups = np.add.reduceat(weights * good, starts, axis=1)
        downs = np.add.reduceat(weights * ~good, starts, axis=1)
        won = (ups * (np.cumsum(downs, axis=1) - downs / 2)).sum(axis=1)
        series.append(ratio(won, ups.sum(axis=1) * downs.sum(axis=1)))
    return resampling.estimate(np.concatenate(series))


# ---------------------------------------------------------------------------------------------------------- silhouette
@dataclass(frozen=True)
class SilhouetteTest:
    """Mean silhouette of n points in n_classes classes against permuted labels.

    value, null_mean, null_95 (95th percentile of the null) in [-1, 1]; p = (1 + null values >= value) / (1 +
    permutations), in (0, 1]; by_class: mean silhouette of each class's points.
    """

    value: float
    p: float
    null_mean: float
    null_95: float
    n: int
    n_classes: int
    by_class: dict[str, float]

    @property
    def holds(self) -> bool:
        """True if the value is positive and above the 95th percentile of its null."""
        return self.value > 0 and self.value > self.null_95


def cosine_distances(points: Any) -> np.ndarray:
    """1 - cosine between all rows of points (n, width): (n, n) float64 in [0, 2], zeros on the diagonal.

    Raises DataError for a row without direction (norm 0 or not finite).
    """
    x = to_numpy(points).astype(np.float64)
    norms = np.linalg.norm(x, axis=1, keepdims=True)
    if not np.isfinite(norms).all() or (norms == 0).any():
        raise DataError("a point has norm 0 or is not finite, so it has no direction. Leave dead atoms out.")
    x = x / norms
    distances = np.clip(1 - x @ x.T, 0, 2)
    np.fill_diagonal(distances, 0)
    return distances


def silhouette_points(distances: np.ndarray, labels: Sequence[Any]) -> np.ndarray:
    """Silhouette of each point, (n,), in [-1, 1]; 0 for the only point of a class.

    distances: (n, n), symmetric, zero diagonal. Raises DataError unless there are two classes and more points than
    classes, ShapeError if sizes differ.
    """
    distances, codes, names = _checked(distances, labels)
    return _silhouettes(distances, codes[None], len(names))[0]


def silhouette_test(
    distances: np.ndarray, labels: Sequence[Any], *, rng: np.random.Generator, permutations: int = 1000
) -> SilhouetteTest:
    """Mean silhouette over the labelled points (label None: left out) and its null under permuted labels.

    distances: (n, n) as from `cosine_distances`; labels: (n,). Raises as `silhouette_points` does.
    """
    kept = np.array([i for i, label in enumerate(labels) if label is not None], dtype=np.int64)
    distances = np.asarray(distances)[np.ix_(kept, kept)] if len(kept) < len(labels) else np.asarray(distances)
    distances, codes, names = _checked(distances, [labels[i] for i in kept])
    points = _silhouettes(distances, codes[None], len(names))[0]
    null: list[np.ndarray] = []
    at_once = max(1, CHUNK // (4 * codes.size * len(names)))
    for start in range(0, permutations, at_once):
        mixed = rng.permuted(np.tile(codes, (min(at_once, permutations - start), 1)), axis=1)
        null.append(_silhouettes(distances, mixed, len(names)).mean(axis=1))
    values, value = np.concatenate(null), float(points.mean())
    by_class = {str(name): float(points[codes == k].mean()) for k, name in enumerate(names)}
    p = (1 + int((values >= value - 1e-12).sum())) / (1 + len(values))
    return SilhouetteTest(
        value, p, float(values.mean()), float(np.quantile(values, 0.95)), len(codes), len(names), by_class
    )


def silhouette_pairs(
    distances: np.ndarray, labels: Sequence[Any], *, rng: np.random.Generator, permutations: int = 1000
) -> dict[tuple[str, str], SilhouetteTest]:
    """The test for every pair of classes, on the points of these two classes only; pairs in sorted order.

    Pairs with fewer than three points are left out. Shapes and errors as in `silhouette_test`.
    """
    tests = {}
    for pair in combinations(sorted({label for label in labels if label is not None}), 2):
        kept = [label if label in pair else None for label in labels]
        if sum(label is not None for label in kept) > 2:
            tests[pair] = silhouette_test(distances, kept, rng=rng, permutations=permutations)
    return tests


def _checked(distances: np.ndarray, labels: Sequence[Any]) -> tuple[np.ndarray, np.ndarray, list[Any]]:
    distances = np.asarray(distances, dtype=np.float64)
    if distances.shape != (len(labels), len(labels)):
        raise ShapeError(f"distances {distances.shape} do not fit {len(labels)} labels; give (n, n) distances.")
    names = sorted(set(labels))
    if not 2 <= len(names) < max(len(labels), 1):
        raise DataError(
            f"{len(labels)} labelled points in {len(names)} classes; a silhouette needs two classes and more."
        )
    return distances, np.array([names.index(label) for label in labels]), names


def _silhouettes(distances: np.ndarray, labelings: np.ndarray, n_classes: int) -> np.ndarray:
    """Silhouettes (labelings, n) of points under several labelings (labelings, n) with the same class sizes, at
    once."""
    n_labelings, n = labelings.shape
    members = labelings[:, :, None] == np.arange(n_classes)
    sizes = members[0].sum(axis=0)
    flat = members.transpose(1, 0, 2).reshape(n, -1).astype(np.float64)
    sums = (distances @ flat).reshape(n, n_labelings, n_classes).transpose(1, 0, 2)
    own = np.take_along_axis(sums, labelings[:, :, None], axis=2)[:, :, 0] / np.maximum(sizes[labelings] - 1, 1)
    other = np.where(members, np.inf, sums / sizes).min(axis=2)
    larger = np.maximum(own, other)
    values = np.divide(other - own, larger, out=np.zeros_like(own), where=larger > 0)
    return np.where(sizes[labelings] > 1, values, 0.0)
