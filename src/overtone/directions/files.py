"""Vectors with facts on disk: one safetensors file of vectors, one JSON file of facts, one manifest.

``vectors.safetensors`` holds entries 0000, 0001, ...; ``directions.json`` the list of facts in the same order.
"""

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from overtone.core.artifacts import Manifest, new_folder, read_manifest, write_json

KIND = "directions"


def write(
    folder: str | Path, vectors: Sequence[Tensor], facts: Sequence[Mapping[str, Any]], models: Sequence[str]
) -> None:
    """Write vectors and their facts into a new folder; models are the fingerprints they come from.

    Raises StoreError if the folder holds something that is not an artifact.
    """
    sources = {f"model {i}": fingerprint for i, fingerprint in enumerate(models)}
    with new_folder(folder, Manifest(KIND, sources=sources, facts={"n_directions": len(vectors)})) as part:
        save_file({f"{i:04d}": v.contiguous() for i, v in enumerate(vectors)}, part / "vectors.safetensors")
        write_json(part / "directions.json", [plain(f) for f in facts])


def read(folder: str | Path) -> list[tuple[Tensor, dict[str, Any]]]:
    """(vector, facts) of every entry, in order. Raises StoreError if the folder is damaged, unfinished or foreign."""
    read_manifest(folder, KIND)
    vectors = load_file(Path(folder) / "vectors.safetensors")
    facts = json.loads((Path(folder) / "directions.json").read_text())
    return [(vectors[f"{i:04d}"], fact) for i, fact in enumerate(facts)]


def plain(value: Any) -> Any:
    """The value as JSON data: tuples and tensors as lists, numbers that are not finite as null, anything else as
    text.
    """
    if isinstance(value, torch.Tensor):
        return plain(value.tolist())
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(k): plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [plain(v) for v in value]
    return value if isinstance(value, bool | int | str | None) else str(value)
