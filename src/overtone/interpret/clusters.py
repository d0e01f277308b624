"""Label-free groups of atoms: behaviours that nobody named surface as clusters with their contexts and words.

Distance of two atoms: 1 - ((1 - w) * cosine of their vectors + w * cosine of their columns of |codes|): near when they
point the same way and fire on the same rows. Agglomerative clustering (Ward 1963's cousin, by `linkage`), the number of
clusters by mean silhouette (Rousseeuw 1987), stability of each cluster by re-clustering on resampled documents
(Hennig 2007: mean over draws of the best Jaccard overlap; below 0.5 a cluster is dissolved, above 0.75 it is stable).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from overtone.core.errors import DataError, SettingError
from overtone.interpret.columns import as_columns, same_rows, to_numpy
from overtone.interpret.words import Word, count_words, distinctive_words

LINKAGE = "average"


@dataclass(frozen=True)
class AtomCluster:
    """members: latents, the most often active first; silhouette: mean over members, [-1, 1]; stability: mean best
    Jaccard overlap under resampled documents, [0, 1] (NaN without bootstraps; 1 where coactivation is 0, since then
    no row matters)."""

    index: int
    members: tuple[int, ...]
    silhouette: float
    stability: float

    @property
    def size(self) -> int:
        """Number of atoms."""
        return len(self.members)


@dataclass(frozen=True, eq=False)
class AtomClusters:
    """clusters: the largest first; labels: (latents,) int64 index of each latent's cluster, -1 for those left out (too
    rarely active, or in a group below min_size); curve: number of clusters tried -> mean silhouette."""

    clusters: tuple[AtomCluster, ...]
    labels: np.ndarray
    curve: dict[int, float]


@dataclass(frozen=True)
class ClusterStory:
    """What a cluster is about: share of rows whose strongest latent belongs to it, in [0, 1]; rows: indices of the rows
    in which its members are strongest together, strongest first; words: what sets these rows' texts apart."""

    cluster: AtomCluster
    share: float
    rows: tuple[int, ...]
    words: tuple[Word, ...]

    @property
    def name(self) -> str:
        """Its most distinctive words, an automatic name; "cluster N" if none stands out."""
        return ", ".join(w.word for w in self.words[:3]) or f"cluster {self.cluster.index}"


def cluster_atoms(
    atoms: Any,
    codes: Any,
    documents: Any,
    *,
    rng: np.random.Generator,
    coactivation: float = 0.5,
    between: tuple[int, int] = (4, 24),
    n_min: int = 10,
    min_size: int = 2,
    bootstraps: int = 20,
) -> AtomClusters:
    """Cluster the atoms (latents, width) of a dictionary by direction and by use in codes (rows, latents).

    documents: (rows,) what is resampled for stability; coactivation: the weight w in [0, 1]; between: fewest and most
    clusters tried; n_min: a latent active in fewer rows is left out; min_size: smaller groups are left out.
    Raises DataError if fewer latents than clusters are active, SettingError for values out of range.
    """
    columns, vectors = as_columns(codes), to_numpy(atoms).astype(np.float64)
    same_rows(columns, documents, "documents")
    if not 0 <= coactivation <= 1 or not 2 <= between[0] <= between[1]:
        raise SettingError(f"coactivation={coactivation} must lie in [0, 1] and between={between} must rise from 2.")
    uses = np.diff(columns.indptr)
    alive = np.flatnonzero((uses >= n_min) & (np.linalg.norm(vectors, axis=1) > 0))
    if len(alive) <= between[0]:
        raise DataError(f"only {len(alive)} latents are active in {n_min} rows. Collect more rows, or lower n_min.")
    sizes, unit = abs(columns[:, alive]), vectors[alive] / np.linalg.norm(vectors[alive], axis=1, keepdims=True)
    distances = _distances(unit, sizes, None, coactivation)
    groups, curve = _best_cut(distances, between)
    stability = _stability(groups, unit, sizes, to_numpy(documents), coactivation, rng, bootstraps)
    return _assemble(groups, curve, distances, stability, alive, uses, min_size)


def _distances(unit: np.ndarray, sizes: Any, weights: np.ndarray | None, coactivation: float) -> np.ndarray:
    """(atoms, atoms) in [0, 2]; sizes: CSC |codes| of these atoms; weights: how often each row counts, default once."""
    from scipy.sparse import diags_array

    weighted = sizes if weights is None else diags_array(np.sqrt(weights)) @ sizes
    gram = np.asarray((weighted.T @ weighted).todense(), dtype=np.float64)
    norm = np.sqrt(np.maximum(gram.diagonal(), 1e-30))
    near = (1 - coactivation) * (unit @ unit.T) + coactivation * gram / norm[:, None] / norm[None]
    distances = np.clip(1 - (near + near.T) / 2, 0, 2)
    np.fill_diagonal(distances, 0)
    return distances


def _cut(distances: np.ndarray, numbers: Sequence[int]) -> list[np.ndarray]:
    from scipy.cluster.hierarchy import fcluster, linkage
    from scipy.spatial.distance import squareform

    tree = linkage(squareform(distances, checks=False), LINKAGE)
    return [fcluster(tree, n, criterion="maxclust") - 1 for n in numbers]


def _best_cut(distances: np.ndarray, between: tuple[int, int]) -> tuple[np.ndarray, dict[int, float]]:
    from sklearn.metrics import silhouette_score

    numbers = range(between[0], min(between[1], len(distances) - 1) + 1)
    cuts = {len(set(groups)): groups for groups in _cut(distances, numbers)}
    curve = {
        n: float(silhouette_score(distances, g, metric="precomputed"))
        for n, g in cuts.items()
        if 1 < n < len(distances)
    }
    if not curve:
        raise DataError("the atoms cannot be told apart (all distances are equal), so they form no clusters.")
    return cuts[max(curve, key=lambda n: (curve[n], -n))], curve


def _stability(
    groups: np.ndarray, unit: np.ndarray, sizes: Any, documents: np.ndarray, coactivation: float,
    rng: np.random.Generator, bootstraps: int,
) -> np.ndarray:  # fmt: skip
    """Per group, the mean best Jaccard overlap with the groups found on resampled documents."""
    names, place = np.unique(documents, return_inverse=True)
    numbers, overlaps = len(set(groups)), []
    for _ in range(bootstraps):
        weights = rng.multinomial(len(names), np.full(len(names), 1 / len(names)))[place].astype(np.float64)
        again = _cut(_distances(unit, sizes, weights, coactivation), [numbers])[0]
        together = np.zeros((groups.max() + 1, again.max() + 1))
        np.add.at(together, (groups, again), 1)
        union = together.sum(axis=1, keepdims=True) + together.sum(axis=0, keepdims=True) - together
        overlaps.append((together / union).max(axis=1))
    return np.mean(overlaps, axis=0) if overlaps else np.full(groups.max() + 1, np.nan)


def _assemble(
    groups: np.ndarray, curve: dict[int, float], distances: np.ndarray, stability: np.ndarray, alive: np.ndarray,
    uses: np.ndarray, min_size: int,
) -> AtomClusters:  # fmt: skip
    from sklearn.metrics import silhouette_samples

    points = np.array(silhouette_samples(distances, groups, metric="precomputed"))
    counts = np.bincount(groups)
    kept = [g for g in np.argsort(-counts, kind="stable") if counts[g] >= min_size]
    labels, clusters = np.full(len(uses), -1, dtype=np.int64), []
    for index, g in enumerate(kept):
        members = alive[groups == g]
        labels[members] = index
        ordered = tuple(int(j) for j in members[np.argsort(-uses[members], kind="stable")])
        clusters.append(AtomCluster(index, ordered, float(points[groups == g].mean()), float(stability[g])))
    return AtomClusters(tuple(clusters), labels, curve)


def describe_clusters(
    found: AtomClusters, codes: Any, texts: Sequence[str], *, n_rows: int = 50, n_words: int = 6
) -> tuple[ClusterStory, ...]:
    """A story for every cluster, in their order.

    codes: (rows, latents); texts: (rows,) text of each row, such as the step; n_rows: rows from which the words come.
    Raises ShapeError if the rows do not match.
    """
    columns = as_columns(codes)
    same_rows(columns, texts, "texts")
    sizes = abs(columns)
    first = np.asarray(sizes.tocsr().argmax(axis=1)).ravel()
    leads = np.where(np.diff(columns.tocsr().indptr) > 0, found.labels[first], -1)
    stories, everything = [], count_words(texts)
    for cluster in found.clusters:
        together = np.asarray(sizes[:, list(cluster.members)].sum(axis=1)).ravel()
        top = [int(i) for i in np.argsort(-together, kind="stable")[:n_rows] if together[i] > 0]
        chosen = [texts[i] for i in top]
        words = distinctive_words(chosen, everything - count_words(chosen), n=n_words) if top else ()
        stories.append(ClusterStory(cluster, float((leads == cluster.index).mean()), tuple(top), words))
    return tuple(stories)
