"""overtone.json: what a foreign format cannot hold, kept beside it, so that reading back loses nothing.

It names the parts of the dictionary, its origin, its scalars (a single threshold, the spread of the states) and facts,
and the hashes of the files it belongs to: if those were changed since, it is not used.
"""

import copy
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from overtone.core.artifacts import file_hash, library_version, write_json
from overtone.core.errors import StoreError
from overtone.dictionaries.autoencoder import Autoencoder
from overtone.dictionaries.parts import rebuild
from overtone.formats.format import read_json


def keep(path: Path, model: Autoencoder, facts: Mapping[str, Any], *, files: Sequence[Path]) -> None:
    """Write the file at `path` for a dictionary without input scaling that was written into `files`."""
    scalars = {name: tensor.item() for name, tensor in model.state_dict().items() if tensor.ndim == 0}
    data = {
        "written_by": f"overtone {library_version()}",
        "files": {file.name: file_hash(file) for file in files},
        "spec": model.spec(),
        "scalars": scalars,
        "origin": model.origin,
        "facts": dict(facts),
    }
    write_json(path, data)


def restored(path: Path, read: Autoencoder) -> tuple[Autoencoder, dict[str, Any]]:
    """(dictionary, facts): the dictionary that was exported, from what its format holds (`read`) and the file at `path`.

    Without such a file, or if it belongs to other files or other parts, `read` itself and no facts.
    """
    if not path.is_file():
        return read, {}
    data = read_json(path)
    try:
        if any(file_hash(path.parent / name) != digest for name, digest in data["files"].items()):
            return read, {}
        model = _filled(rebuild(data["spec"]), read.state_dict(), data["scalars"])
    except (KeyError, OSError, StoreError, TypeError, ValueError):
        return read, {}
    model.origin = data.get("origin", {})
    return model.eval().requires_grad_(False), data.get("facts", {})


def _filled(model: Any, tensors: Mapping[str, torch.Tensor], scalars: Mapping[str, float]) -> Any:
    """The parts with their values. Raises KeyError if one is in neither place, ValueError if a shape differs."""
    for name, tensor in model.state_dict().items():
        value = torch.tensor(scalars[name], dtype=tensor.dtype) if name in scalars else tensors[name]
        if value.shape != tensor.shape:
            raise ValueError(name)
        *path, leaf = name.split(".")
        getattr(model.get_submodule(".".join(path)), leaf).data = value.clone()
    return model


def same(one: Autoencoder, other: Autoencoder) -> bool:
    """True if two dictionaries are made of the same parts and hold the same bits."""
    if one.spec() != other.spec():
        return False
    mine, theirs = copy.copy(one.state_dict()), other.state_dict()
    return mine.keys() == theirs.keys() and all(
        mine[name].dtype == theirs[name].dtype and torch.equal(mine[name], theirs[name]) for name in mine
    )
