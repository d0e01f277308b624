"""overtone.json and overtone.safetensors: what a foreign format cannot hold, kept beside it, so that nothing is lost.

They name the parts of the dictionary, its origin, facts, its scalars (a single threshold, the spread of the states) and
what the format has no place for, or vectors that it wants in another form, and the hashes of the files they belong to
and of each other: what was changed since, or comes from another folder, is not used, and the reader says so. A matrix
that the format holds in another form is not kept twice.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from overtone.core.artifacts import file_hash, library_version, write_json
from overtone.core.errors import StoreError
from overtone.dictionaries.autoencoder import Autoencoder
from overtone.dictionaries.parts import rebuild
from overtone.formats.format import read_json, read_safetensors


def keep(path: Path, model: Autoencoder, facts: Mapping[str, Any], files: Sequence[Path], back: Autoencoder) -> bool:
    """Write the file at `path` (.json) for a dictionary without input scaling that was written into `files`, which read
    back as `back`. Returns whether both together give every bit of it; if not, what is kept describes `back`."""
    from safetensors.torch import save_file

    missing, held = _missing(model, back), back.state_dict()
    exact = all(tensor.ndim < 2 or name not in held for name, tensor in missing.items())
    if not exact:
        back.origin, model, missing = model.origin, back, {}
    tensors, more = {name: tensor for name, tensor in missing.items() if tensor.ndim}, path.with_suffix(".safetensors")
    if tensors:
        save_file(tensors, more)
    data = {
        "written_by": f"overtone {library_version()}",
        "files": {file.name: file_hash(file) for file in (*files, *([more] if tensors else []))},
        "spec": model.spec(),
        "scalars": {name: _plain(tensor) for name, tensor in model.state_dict().items() if tensor.ndim == 0},
        "tensors": sorted(tensors),
        "origin": model.origin,
        "facts": dict(facts),
    }
    write_json(path, data)
    return exact


def _plain(scalar: torch.Tensor) -> list[float | str]:
    """[value, dtype] of a tensor without axes; a value survives JSON bit for bit."""
    return [scalar.item(), str(scalar.dtype).removeprefix("torch.")]


def _tensor(value: float, dtype: str) -> torch.Tensor:
    """The tensor that `_plain` described."""
    return torch.tensor(value, dtype=getattr(torch, dtype))


def _missing(model: Autoencoder, back: Autoencoder) -> dict[str, torch.Tensor]:
    """What `model` holds and `back` does not, or not with the same bits."""
    held = back.state_dict()
    return {
        name: tensor.detach().cpu().contiguous()
        for name, tensor in model.state_dict().items()
        if name not in held or held[name].dtype != tensor.dtype or not torch.equal(held[name], tensor)
    }


def restored(path: Path, read: Autoencoder) -> tuple[Autoencoder, dict[str, Any], tuple[str, ...]]:
    """(dictionary, facts, notes): the dictionary that was exported, from what its format holds (`read`) and the file
    `path`.

    Without such a file, or if it belongs to other files or other parts, `read` itself and no facts; a note then says
    what was not used, and why.
    """
    if not path.is_file():
        return read, {}, ()
    data = read_json(path)
    try:
        if changed := [name for name, digest in data["files"].items() if not _same(path.parent / name, digest)]:
            return read, {}, (_unused(path, f"{', '.join(changed)} is not what was written with it"),)
        tensors = read_safetensors(path.with_suffix(".safetensors")) if data["tensors"] else {}
        model = _filled(rebuild(data["spec"]), read.state_dict() | tensors, data["scalars"])
    except (AttributeError, KeyError, OSError, StoreError, TypeError, ValueError):
        return read, {}, (_unused(path, "it does not fit the dictionary, or is damaged"),)
    model.origin = data.get("origin", {})
    return model.eval().requires_grad_(False), data.get("facts", {}), ()


def _same(file: Path, digest: str) -> bool:
    return file.is_file() and file_hash(file) == digest


def _unused(path: Path, why: str) -> str:
    return (
        f"{path.name} was not used, nor what it names, since {why}: the dictionary is what the format alone holds. If "
        "that is not meant, write the folder again"
    )


def _filled(model: Any, tensors: Mapping[str, torch.Tensor], scalars: Mapping[str, Any]) -> Any:
    """The parts with their values. Raises KeyError if one is in neither place, ValueError if a shape differs."""
    for name, tensor in model.state_dict().items():
        value = _tensor(*scalars[name]) if name in scalars else tensors[name]
        if value.shape != tensor.shape:
            raise ValueError(name)
        *path, leaf = name.split(".")
        getattr(model.get_submodule(".".join(path)), leaf).data = value.clone()
    return model
