"""What `overtone train` trains on: a store of states, or arrays from files."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from overtone.core.batch import require_finite
from overtone.core.errors import SettingError, ShapeError, nearest


@dataclass(frozen=True)
class TrainingSource:
    """source, sites, target: as for `training.fit.fit`; names: what the user calls them, "trained on" among them;
    fingerprints: of what was read; facts: about site and states, for the manifest."""

    source: Any
    sites: tuple[Any, ...]
    target: Any
    names: Mapping[str, str]
    fingerprints: Mapping[str, str]
    facts: Mapping[str, Any]


def training_source(paths: tuple[str, ...], sites: tuple[str, ...], target: str, gradients: str) -> TrainingSource:
    """The states of a store, of several stores (NAME=FOLDER each) beside each other, or arrays of files. Raises
    SettingError for a name that is not there, or is missing."""
    from overtone.activations.array import is_arrays
    from overtone.activations.store import ActivationStore
    from overtone.core.artifacts import MANIFEST

    if not paths:
        raise SettingError("--activations names no folder or file. Name one, or several as NAME=FOLDER.")
    first = Path(paths[0])
    if len(paths) == 1 and is_arrays(first):
        return _from_arrays(first, sites, target, gradients)
    if len(paths) == 1 and first.exists() and not any(first.glob(f"*/{MANIFEST}")) and not (first / MANIFEST).exists():
        raise SettingError(
            f"{first} is neither a store of states nor arrays. Stores are made by `overtone collect`; arrays of (rows, "
            "width) are read from .npy and .safetensors files, or a folder of such."
        )
    if gradients:
        raise SettingError("--gradients names an array of a file; a store has its gradients beside the states.")
    if len(paths) > 1:
        return _of_several(paths, sites, target)
    store = ActivationStore.open(first)
    sites = sites or (tuple(map(str, store.sites)) if len(store.sites) == 1 else ())
    named = _names("+".join(sites) or str(store.sites[0]), target)
    prints = {"store": store.fingerprint}
    return TrainingSource(store, sites, target or None, named, prints, {"states": states_of(store)})


def states_of(store: Any) -> dict[str, Any]:
    """What a store's states are of: fingerprints of model and traces, and the rule that made rows."""
    return {**store.manifest.sources, "positions": store.manifest.facts["positions"]}


def _of_several(paths: tuple[str, ...], sites: tuple[str, ...], target: str) -> TrainingSource:
    from overtone.activations.aligned import AlignedSources
    from overtone.activations.store import ActivationStore

    parts = [path.partition("=") for path in paths]
    names = [name for name, _, _ in parts]
    if not all(name and folder for name, _, folder in parts) or len(set(names)) < len(names):
        raise SettingError(
            f"--activations {' '.join(paths)}: several folders need a name each, such as base=FOLDER chat=FOLDER."
        )
    source = AlignedSources({name: ActivationStore.open(folder) for name, _, folder in parts})
    if not sites:
        raise SettingError(f"say which to train on: --site {' '.join(map(str, source.sites))}.")
    prints = {name: part.fingerprint for name, part in source.sources.items()}
    return TrainingSource(source, sites, target or None, _names("+".join(sites), target), prints, {})


def _from_arrays(path: Path, sites: tuple[str, ...], target: str, gradients: str) -> TrainingSource:
    import torch

    from overtone.activations.array import ArraySource, read_arrays
    from overtone.core.batch import ActivationBatch, Where

    arrays = read_arrays(path)
    if len(sites) == 0:
        left = [name for name in arrays if name not in (target, gradients)]
        if len(left) != 1:
            example = (left or list(arrays))[0]
            raise SettingError(f"{path} holds {', '.join(arrays)}: say which to train on, e.g. --site {example}.")
        sites = (left[0],)
    if twice := [name for name in sites if sites.count(name) > 1]:
        raise SettingError(f"--site names {twice[0]} twice: views are different arrays.")
    asked = [*sites, *filter(None, (target, gradients))]
    if missing := [name for name in asked if name not in arrays]:
        hint = nearest(missing[0], arrays)
        raise SettingError(f"{path} has no array {missing[0]!r}; it holds {', '.join(arrays)}.{hint}")
    for name in asked:
        _require_rows(arrays[name], f"{path}: {name}")
    _require_alike(arrays, sites, target, gradients)
    if gradients and len(sites) > 1:
        raise SettingError(f"--gradients {gradients} belongs to one array, and there are {len(sites)}. Name one site.")
    seats = _seats([*sites, *filter(None, (target,))])
    nothing = torch.zeros(arrays[sites[0]].shape[0], dtype=torch.int64)
    where = Where(torch.arange(len(nothing)), nothing, nothing)
    g = {seats[sites[0]]: arrays[gradients]} if gradients else None
    batch = ActivationBatch({seat: arrays[name] for name, seat in seats.items()}, where, g=g)
    prints = {name: ArraySource(arrays[name]).fingerprint for name in asked}
    named = _names("+".join(sites), target)
    real = all(str(seat) == name for name, seat in seats.items())
    facts = {} if real else {"site": "", "target": "", "arrays": ", ".join(asked)}
    return TrainingSource(batch, tuple(seats[s] for s in sites), seats.get(target), named, prints, facts)


def _require_rows(array: Any, what: str) -> None:
    """Raise ShapeError or DataError, naming the array, unless it is a matrix of finite floating numbers."""
    if array.ndim != 2 or not array.is_floating_point() or not array.numel():
        raise ShapeError(
            f"{what}: expected a floating matrix (rows, width), got {tuple(array.shape)} {array.dtype}. Flatten batch "
            "and position into rows, as floats."
        )
    require_finite(array, what)


def _require_alike(arrays: dict[str, Any], sites: tuple[str, ...], target: str, gradients: str) -> None:
    """Raise ShapeError, naming the arrays, unless all have the same rows and gradients also the width of the states."""
    first = arrays[sites[0]].shape
    for name in (*sites[1:], *filter(None, (target, gradients))):
        shape = arrays[name].shape
        if shape[0] != first[0] or (name == gradients and shape != first):
            wanted = str(tuple(first)) if name == gradients else f"({first[0]}, width)"
            raise ShapeError(
                f"{name}: expected {wanted}, as {sites[0]} is {tuple(first)}, got {tuple(shape)}. Name an array of the "
                "same rows."
            )


def _names(trained_on: str, target: str) -> dict[str, str]:
    return {"trained on": trained_on, **({"predicts": target} if target else {})}


def _seats(names: list[str]) -> dict[str, Any]:
    """A site for each array: the one it is named after, or, where one has another name, stand-ins for all."""
    from overtone.core.sites import Site

    try:
        return {name: Site.parse(name) for name in names}
    except ValueError:
        return {name: Site("residual", layer) for layer, name in enumerate(names)}
