"""One shard of a store: a safetensors file with named (rows, width) tensors, read range by range.

Ranges are read with plain file reads at known offsets: a memory map would make the whole file count as resident.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from overtone.core.errors import StoreError

_DTYPES = {"F32": torch.float32, "BF16": torch.bfloat16, "F16": torch.float16}
NAMES = {"float32": "F32", "bfloat16": "BF16", "float16": "F16"}
"""Names of dtypes in settings -> in safetensors files."""


def write_shard(path: Path, rows: Mapping[str, Float[Tensor, "rows _"]]) -> None:
    """Write named tensors, atomically: the file appears whole or not at all."""
    from safetensors.torch import save_file

    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        save_file({name: tensor.contiguous() for name, tensor in rows.items()}, part)
        with open(part, "rb") as file:
            os.fsync(file.fileno())
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)


@dataclass(frozen=True)
class Column:
    """What a shard holds under one name: numbers per row and their dtype, as it is called in settings."""

    width: int
    dtype: str


@dataclass(frozen=True)
class Shard:
    """A validated shard: its file, the documents (by index) whose rows it holds in order, the number of rows, and for
    each name what it holds and where its numbers begin in the file (bytes)."""

    path: Path
    documents: range
    rows: int
    columns: Mapping[str, Column]
    starts: Mapping[str, int]

    @classmethod
    def open(cls, path: Path, documents: range, rows: int, columns: Mapping[str, Column]) -> Shard:
        """Check that a file holds the named columns.

        Raises StoreError if it is missing, truncated, or holds something else.
        """
        header, base = _header(path)
        starts = {}
        for name, column in columns.items():
            entry = header.get(name)
            if entry is None or entry["shape"] != [rows, column.width] or entry["dtype"] != NAMES[column.dtype]:
                found = "nothing" if entry is None else f"{entry['shape']} {entry['dtype']}"
                raise StoreError(
                    f"{path}: expected [{rows}, {column.width}] {column.dtype} at {name}, found {found}. "
                    "Collect it again."
                )
            starts[name] = base + entry["data_offsets"][0]
        return cls(path, documents, rows, dict(columns), starts)


def _header(path: Path) -> tuple[dict, int]:
    """The entries of a safetensors file and the offset of its first number."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt"):  # the library checks that header and size of the file agree
            pass
        with open(path, "rb") as file:
            length = int.from_bytes(file.read(8), "little")
            return json.loads(file.read(length)), 8 + length
    except FileNotFoundError:
        raise StoreError(f"{path} is missing. Collect the store again.") from None
    except (SafetensorError, OSError, ValueError) as error:
        raise StoreError(f"{path} is truncated or no safetensors file ({error}). Collect the store again.") from None


def read_rows(shard: Shard, name: str, start: int, stop: int) -> Float[Tensor, "rows width"]:
    """Rows start..stop of a shard under a name, float32. Raises StoreError if the file ends before them."""
    column = shard.columns[name]
    dtype = _DTYPES[NAMES[column.dtype]]
    row = column.width * dtype.itemsize
    n_bytes = (stop - start) * row
    try:
        raw = np.fromfile(shard.path, np.uint8, count=n_bytes, offset=shard.starts[name] + start * row)
    except OSError as error:
        raise StoreError(f"{shard.path} cannot be read ({error}). Collect the store again.") from None
    if len(raw) != n_bytes:
        raise StoreError(f"{shard.path} was truncated after it was opened. Collect the store again.")
    return torch.from_numpy(raw).view(dtype).reshape(stop - start, column.width).float()
