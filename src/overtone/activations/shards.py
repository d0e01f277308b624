"""One shard of a store: a safetensors file with a (rows, width) tensor per site, read range by range.

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
from overtone.core.sites import Site

_DTYPES = {"F32": torch.float32, "BF16": torch.bfloat16, "F16": torch.float16}
NAMES = {"float32": "F32", "bfloat16": "BF16", "float16": "F16"}
"""Names of dtypes in settings -> in safetensors files."""


def write_shard(path: Path, rows: Mapping[Site, Float[Tensor, "rows _"]]) -> None:
    """Write one tensor per site, atomically: the file appears whole or not at all."""
    from safetensors.torch import save_file

    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        save_file({str(site): tensor.contiguous() for site, tensor in rows.items()}, part)
        with open(part, "rb") as file:
            os.fsync(file.fileno())
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)


@dataclass(frozen=True)
class Shard:
    """A validated shard: its file, the documents (by index) whose rows it holds in order, the number of rows, and where
    each site's numbers begin in the file (bytes), with their dtype."""

    path: Path
    documents: range
    rows: int
    dtype: torch.dtype
    starts: Mapping[Site, int]
    widths: Mapping[Site, int]

    @classmethod
    def open(cls, path: Path, documents: range, rows: int, dtype: str, widths: Mapping[Site, int]) -> Shard:
        """Check that a file holds (rows, width) numbers of a dtype at every site.

        Raises StoreError if it is missing, truncated, or holds something else.
        """
        header, base = _header(path)
        starts = {}
        for site, width in widths.items():
            entry = header.get(str(site))
            if entry is None or entry["shape"] != [rows, width] or entry["dtype"] != NAMES[dtype]:
                found = "nothing" if entry is None else f"{entry['shape']} {entry['dtype']}"
                raise StoreError(
                    f"{path}: expected [{rows}, {width}] {dtype} at {site}, found {found}. Collect it again."
                )
            starts[site] = base + entry["data_offsets"][0]
        return cls(path, documents, rows, _DTYPES[NAMES[dtype]], starts, dict(widths))


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


def read_rows(shard: Shard, site: Site, start: int, stop: int) -> Float[Tensor, "rows width"]:
    """Rows start..stop of a shard at a site, float32. Raises StoreError if the file ends before them."""
    width = shard.widths[site]
    row = width * shard.dtype.itemsize
    n_bytes = (stop - start) * row
    try:
        raw = np.fromfile(shard.path, np.uint8, count=n_bytes, offset=shard.starts[site] + start * row)
    except OSError as error:
        raise StoreError(f"{shard.path} cannot be read ({error}). Collect the store again.") from None
    if len(raw) != n_bytes:
        raise StoreError(f"{shard.path} was truncated after it was opened. Collect the store again.")
    return torch.from_numpy(raw).view(shard.dtype).reshape(stop - start, width).float()
