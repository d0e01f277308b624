"""Dictionaries on disk: a folder with dictionary.json, weights.safetensors and a manifest, no bit lost, no pickle."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from overtone.core.artifacts import Manifest, new_folder, read_manifest, write_json
from overtone.core.errors import StoreError
from overtone.dictionaries.dictionary import Dictionary
from overtone.dictionaries.parts import rebuild

KIND = "dictionary"


def save_dictionary(
    dictionary: Dictionary, folder: str | Path, *, seed: int | None = None, sources: Mapping[str, str] | None = None,
    facts: Mapping[str, Any] | None = None, record: Sequence[Mapping[str, Any]] | None = None, page: str = "",
) -> Path:  # fmt: skip
    """Write a dictionary into a folder, atomically; an older dictionary there is replaced. Returns the folder.

    sources: what it was made from (name -> fingerprint); facts: plain data such as the site; record: the course of the
    training; page: text of a README.md. Raises StoreError if the folder holds something else.
    """
    from safetensors.torch import save_file

    folder = Path(folder)
    described = {
        "spec": dictionary.spec(),
        "origin": dictionary.origin,
        "width": dictionary.width,
        "n_latents": dictionary.n_latents,
        "capabilities": dictionary.capabilities.to_dict(),
    }
    with new_folder(folder, Manifest(KIND, seed, dict(sources or {}), dict(facts or {}))) as part:
        save_file(
            {k: v.detach().cpu().contiguous() for k, v in dictionary.state_dict().items()}, part / "weights.safetensors"
        )
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
    from safetensors.torch import load_file

    folder = Path(folder)
    read_manifest(folder, KIND)
    described = json.loads((folder / "dictionary.json").read_text())
    dictionary = rebuild(described["spec"])
    weights = load_file(folder / "weights.safetensors")
    for name, tensor in dictionary.state_dict().items():
        if name in weights and weights[name].dtype != tensor.dtype:
            _retype(dictionary, name, weights[name].dtype)
    try:
        dictionary.load_state_dict(weights)
    except RuntimeError as error:
        raise StoreError(f"{folder} does not fit its own description ({error}). Train the dictionary again.") from None
    dictionary.origin = described["origin"]
    return dictionary.eval().requires_grad_(False)


def _retype(dictionary: Dictionary, name: str, dtype: Any) -> None:
    """Give one parameter or buffer another dtype: a dictionary may be stored in half precision, its thresholds
    never."""
    *path, leaf = name.split(".")
    owner = dictionary.get_submodule(".".join(path))
    tensor = getattr(owner, leaf)
    tensor.data = tensor.data.to(dtype)
