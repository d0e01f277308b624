"""Dictionaries on disk: a folder with dictionary.json, weights.safetensors and a manifest, no bit lost, no pickle."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from overtone.core.artifacts import Manifest, new_folder, read_manifest, write_json
from overtone.core.errors import StoreError
from overtone.core.tensor_files import Blocks, StoredTensors, write_tensors
from overtone.dictionaries.dictionary import Dictionary
from overtone.dictionaries.parts import rebuild

KIND, WEIGHTS = "dictionary", "weights.safetensors"


def save_dictionary(
    dictionary: Dictionary, folder: str | Path, *, seed: int | None = None, sources: Mapping[str, str] | None = None,
    facts: Mapping[str, Any] | None = None, record: Sequence[Mapping[str, Any]] | None = None, page: str = "",
) -> Path:  # fmt: skip
    """Write a dictionary into a folder, atomically; an older dictionary there is replaced. Returns the folder.

    sources: what it was made from (name -> fingerprint); facts: plain data such as the site; record: the course of the
    training; page: text of a README.md. Raises StoreError if the folder holds something else.
    """
    folder = Path(folder)
    described = {
        "spec": dictionary.spec(),
        "origin": dictionary.origin,
        "width": dictionary.width,
        "n_latents": dictionary.n_latents,
        "capabilities": dictionary.capabilities.to_dict(),
    }
    with new_folder(folder, Manifest(KIND, seed, dict(sources or {}), dict(facts or {}))) as part:
        write_tensors(part / WEIGHTS, {name: Blocks.of(tensor) for name, tensor in dictionary.state_dict().items()})
        write_json(part / "dictionary.json", described)
        if record is not None:
            write_json(part / "record.json", list(record))
        if page:
            (part / "README.md").write_text(page)
    return folder


def load_dictionary(folder: str | Path) -> Dictionary:
    """The dictionary of a folder, in eval mode on the CPU, equal to the saved one bit for bit.

    Raises StoreError if the folder is missing, damaged, foreign, or made of parts that this version does not know.
    """
    folder = Path(folder)
    read_manifest(folder, KIND)
    described = json.loads((folder / "dictionary.json").read_text())
    dictionary = rebuild(described["spec"])
    stored, expected = StoredTensors(folder / WEIGHTS), dictionary.state_dict()
    there, here = {n: stored.shape(n) for n in stored}, {n: tuple(t.shape) for n, t in expected.items()}
    if there != here:
        raise StoreError(
            f"{folder} does not fit its own description: {WEIGHTS} has {_brief(there, here)}, where "
            f"{_brief(here, there)} should be. Train the dictionary again."
        )
    for name, tensor in expected.items():
        if stored.dtype(name) != tensor.dtype:
            _retype(dictionary, name, stored.dtype(name))
    for name, tensor in dictionary.state_dict().items():
        stored.copy_to(tensor, name)
    dictionary.origin = described["origin"]
    return dictionary.eval().requires_grad_(False)


def _brief(shapes: Mapping[str, tuple[int, ...]], others: Mapping[str, tuple[int, ...]]) -> str:
    """Those that the others lack or have in another shape."""
    different = [f"{name} {list(shape)}" for name, shape in shapes.items() if others.get(name) != shape]
    return ", ".join(different) or "nothing"


def _retype(dictionary: Dictionary, name: str, dtype: Any) -> None:
    """Give one parameter or buffer another dtype: a dictionary may be stored in half precision, its thresholds
    never."""
    *path, leaf = name.split(".")
    owner = dictionary.get_submodule(".".join(path))
    tensor = getattr(owner, leaf)
    tensor.data = tensor.data.to(dtype)
