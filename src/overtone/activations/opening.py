"""One way to stored activations, whatever they are stored in."""

from __future__ import annotations

from pathlib import Path

from overtone.activations.array import ArraySource
from overtone.activations.source import ActivationSource
from overtone.activations.store import ActivationStore


def open_activations(path: str | Path, *, name: str | None = None) -> ActivationSource:
    """The rows at a path: a folder that `overtone collect` made, a .safetensors or an .npy file of one (rows, width)
    array.

    name: which tensor of a .safetensors file that holds several. Raises DataError or StoreError if there is nothing
    readable.
    """
    path = Path(path)
    return ActivationStore.open(path) if path.is_dir() or not path.suffix else ArraySource.open(path, name=name)
