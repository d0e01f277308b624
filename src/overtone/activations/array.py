"""Any array of rows as a source of activations: a tensor in memory, a .safetensors or an .npy file."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from pathlib import Path

import torch
from torch import Tensor

from overtone.activations.source import MOST_BYTES, gathered, recut
from overtone.core.artifacts import MANIFEST
from overtone.core.batch import ActivationBatch, Where, require_finite
from overtone.core.errors import DataError, SettingError, ShapeError, nearest
from overtone.core.seeds import torch_generator
from overtone.core.sites import Site

_PIECE_ROWS = 8192


class ArraySource:
    """An `ActivationSource` over one (rows, width) array of floating numbers.

    site: the name the rows go by (a label; nothing is looked up in a model). where: origin of each row (default: every
    row is a document of its own). With a seed, each epoch is a permutation of all rows. Raises ShapeError unless the
    array is a floating matrix with rows; NaN is found when it is read (DataError).
    """

    def __init__(self, array: Tensor, *, site: Site | str = "residual.0", where: Where | None = None) -> None:
        if array.ndim != 2 or not array.is_floating_point() or array.numel() == 0:
            raise ShapeError(
                f"expected a floating matrix (rows, width), got {tuple(array.shape)} {array.dtype}. "
                "Flatten batch and position into rows."
            )
        n = array.shape[0]
        if where is not None and len(where) != n:
            raise ShapeError(f"where: expected the origin of {n} rows, got {len(where)}.")
        self.array, self.site = array, Site.parse(site)
        self.where = where or Where(torch.arange(n), torch.zeros(n, dtype=torch.int64), torch.full((n,), -1))

    @classmethod
    def open(cls, path: str | Path, *, name: str | None = None, site: Site | str = "residual.0") -> ArraySource:
        """Rows from a .npy file or from one tensor of a .safetensors file; read as they are needed, not at once.

        name: which tensor, if the file holds several. Raises DataError if the file is missing or of another format.
        """
        path = Path(path)
        readers = {".npy": _from_npy, ".safetensors": _from_safetensors}
        if path.suffix not in readers:
            raise DataError(f"{path}: arrays are read from {', '.join(readers)}. Convert it.")
        if not path.is_file():
            raise DataError(f"{path} does not exist. Correct the path.")
        return cls(readers[path.suffix](path, name), site=site)

    @property
    def sites(self) -> tuple[Site, ...]:
        """The one site the rows go by."""
        return (self.site,)

    @property
    def widths(self) -> Mapping[Site, int]:
        """Width of the rows."""
        return {self.site: self.array.shape[1]}

    @property
    def fingerprint(self) -> str:
        """Hash of shape, dtype and up to 256 rows spread evenly: 16 hex digits, cheap for any size."""
        n, width = self.array.shape
        some = (
            self.array[torch.linspace(0, n - 1, min(n, 256), dtype=torch.float64).long().to(self.array.device)]
            .float()
            .cpu()
        )
        digest = hashlib.sha256(f"{n} {width} {self.array.dtype}".encode())
        digest.update(some.contiguous().numpy().tobytes())
        return digest.hexdigest()[:16]

    @property
    def n_rows(self) -> int:
        """Number of rows."""
        return self.array.shape[0]

    def batches(self, rows: int, *, seed: int | None = None, epochs: int = 1) -> Iterator[ActivationBatch]:
        """Batches of exactly `rows` rows, the last may be smaller, float32. Raises SettingError for a count of 0."""
        if rows < 1 or epochs < 1:
            raise SettingError(f"rows={rows}, epochs={epochs}: use at least 1.")
        return recut(self._pieces(seed, epochs), rows)

    def all(self, *, most_bytes: int = MOST_BYTES) -> ActivationBatch:
        """All rows in order, float32, as a copy. Raises DataError if they take more than `most_bytes`."""
        return gathered(self._pieces(None, 1), self.n_rows, self.widths, most_bytes=most_bytes)

    def _pieces(self, seed: int | None, epochs: int) -> Iterator[ActivationBatch]:
        for epoch in range(epochs):
            order = torch.arange(self.n_rows)
            if seed is not None:
                order = torch.randperm(self.n_rows, generator=torch_generator(seed, "rows", epoch))
            for chosen in order.split(_PIECE_ROWS):
                rows = require_finite(self.array[chosen.to(self.array.device)].float(), f"{self.site}")
                yield ActivationBatch({self.site: rows}, self.where.select(chosen))


def is_arrays(path: str | Path) -> bool:
    """Whether a path is meant for `read_arrays`: a file by its name, or a folder that has such files and no
    manifest."""
    path = Path(path)
    if path.is_dir():
        return not (path / MANIFEST).exists() and any(f.suffix in (".npy", ".safetensors") for f in path.iterdir())
    return path.suffix in (".npy", ".safetensors")


def read_arrays(path: str | Path) -> dict[str, Tensor]:
    """All arrays of a .safetensors or .npy file by name ("array" for a .npy file, which knows none), or of a folder of
    such files, where arrays of one name are joined by rows in the order of the files' names.

    Raises DataError if there is nothing to read, or a file is damaged; ShapeError if parts do not fit.
    """
    path = Path(path)
    readers = {".npy": _all_npy, ".safetensors": _all_safetensors}
    files = sorted(f for f in path.iterdir() if f.suffix in readers) if path.is_dir() else [path]
    if not path.exists():
        raise DataError(f"{path} does not exist. Correct the path.")
    if not files or files[0].suffix not in readers:
        raise DataError(f"{path}: there are no arrays; expected {' or '.join(readers)}. Correct the path, or convert.")
    parts: dict[str, list[Tensor]] = {}
    for file in files:
        for name, array in readers[file.suffix](file).items():
            parts.setdefault(name, []).append(array)
    if wrong := [name for name, found in parts.items() if len({tuple(part.shape[1:]) for part in found}) > 1]:
        raise ShapeError(f"{path}: parts of {wrong[0]} differ in width and cannot be joined by rows.")
    return {name: found[0] if len(found) == 1 else torch.cat(found) for name, found in parts.items()}


def _all_npy(path: Path) -> dict[str, Tensor]:
    return {"array": _from_npy(path, None)}


def _all_safetensors(path: Path) -> dict[str, Tensor]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(path)
    except (SafetensorError, OSError) as error:
        raise DataError(f"{path} is no safetensors file ({error}). Save it again.") from None


def _from_npy(path: Path, name: str | None) -> Tensor:
    import numpy as np

    if name is not None:
        raise SettingError(f"{path} holds one array without a name; leave name={name!r} out.")
    try:
        return torch.from_numpy(np.load(path, mmap_mode="c"))
    except (ValueError, TypeError, OSError) as error:
        raise DataError(f"{path} is not an array of numbers ({error}). Save it with numpy.save.") from None


def _from_safetensors(path: Path, name: str | None) -> Tensor:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt") as file:
            names = list(file.keys())
            if name is None and len(names) == 1:
                name = names[0]
            if name not in names:
                hint = nearest(name, names) if name else ""
                raise DataError(f"{path} holds {', '.join(names)}; name={name!r}.{hint} Name one of them.")
            return file.get_tensor(name)
    except (SafetensorError, OSError) as error:
        raise DataError(f"{path} is no safetensors file ({error}). Save it again.") from None
