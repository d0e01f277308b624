"""A map of atoms: two coordinates each, near when their directions are near."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np

from overtone.core.errors import DataError, SettingError
from overtone.interpret.columns import to_numpy

METHODS = ("umap", "pca")


@dataclass(frozen=True, eq=False)
class AtomMap:
    """xy: (atoms, 2), each axis within [-1, 1]; method: one of METHODS; explained: share of the unit atoms' variance
    that the plane shows, in [0, 1] (PCA; NaN for UMAP, whose axes have no such meaning)."""

    xy: np.ndarray
    method: str
    explained: float


def map_atoms(atoms: Any, *, seed: int = 0, method: str | None = None, neighbours: int = 15) -> AtomMap:
    """Lay atoms (n, width) out in the plane by the cosine between them; equal seeds give equal maps.

    method: "umap" (as RISE draws it; needs umap-learn), "pca", or None: UMAP where it is installed, PCA else.
    neighbours: UMAP's size of a neighbourhood. Raises DataError for fewer than three atoms or one of norm 0,
    SettingError for an unknown method or UMAP asked for but not installed.
    """
    x = to_numpy(atoms).astype(np.float64)
    norms = np.linalg.norm(x, axis=1, keepdims=True)
    if len(x) < 3 or not (norms > 0).all():
        raise DataError(f"a map needs three atoms or more, none of norm 0; got {len(x)}. Leave dead atoms out.")
    if method not in (None, *METHODS):
        raise SettingError(f"method={method!r} is not a kind of map. Use 'umap', 'pca' or None.")
    module = None if method == "pca" else _umap()
    if module is None and method == "umap":
        raise SettingError("method='umap' needs umap-learn: install overtone[map], or use method='pca'.")
    return _pca(x / norms) if module is None or len(x) < 10 else _by_umap(module, x / norms, seed, neighbours)


def _umap() -> Any:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # it warns about optional parts (TensorFlow) that nobody asked for
            import umap
    except ImportError:
        return None
    return umap


def _by_umap(module: Any, x: np.ndarray, seed: int, neighbours: int) -> AtomMap:
    reducer = module.UMAP(metric="cosine", random_state=seed, n_jobs=1, n_neighbors=min(neighbours, len(x) - 1))
    with warnings.catch_warnings():
        warnings.simplefilter(
            "ignore"
        )  # its neighbours' warnings are about speed and graph pieces, not about the result
        return AtomMap(_fitted(np.asarray(reducer.fit_transform(x), dtype=np.float64)), "umap", float("nan"))


def _pca(x: np.ndarray) -> AtomMap:
    centred = x - x.mean(axis=0)
    u, s, vt = np.linalg.svd(centred, full_matrices=False)
    signs = np.sign(vt[np.arange(2), np.abs(vt[:2]).argmax(axis=1)]) if len(vt) > 1 else np.ones(1)
    xy = np.zeros((len(x), 2))
    xy[:, : len(s[:2])] = u[:, :2] * s[:2] * signs  # the sign of a component is arbitrary: make it repeatable
    return AtomMap(_fitted(xy), "pca", float((s[:2] ** 2).sum() / max((s**2).sum(), 1e-30)))


def _fitted(xy: np.ndarray) -> np.ndarray:
    """Centre the cloud and scale both axes by one factor, so that distances keep their ratios."""
    xy = xy - (xy.max(axis=0) + xy.min(axis=0)) / 2
    return xy / max(float(np.abs(xy).max()), 1e-30)
