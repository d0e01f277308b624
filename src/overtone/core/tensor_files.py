"""safetensors files, written and read block by block: neither takes the memory of what a file holds.

What is written is byte for byte what `safetensors.torch.save_file` writes.
"""

import json
import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor

BLOCK = 2**22  # bytes of a tensor that are copied at a time
# The format's names, in the order in which its own writer sorts them: no tensor begins at an odd address.
NAMES = {
    torch.uint64: "U64", torch.int64: "I64", torch.float64: "F64", torch.float32: "F32", torch.uint32: "U32",
    torch.int32: "I32", torch.bfloat16: "BF16", torch.float16: "F16", torch.uint16: "U16", torch.int16: "I16",
    torch.int8: "I8", torch.uint8: "U8", torch.bool: "BOOL",
}  # fmt: skip


class Readable(Protocol):
    """A tensor, or one in a file: `stored[first:last]` reads these rows, `stored[...]` everything."""

    def __getitem__(self, index: Any, /) -> Tensor: ...


@dataclass(frozen=True, eq=False)
class Blocks:
    """A tensor that comes block by block along its first axis, once."""

    dtype: torch.dtype
    shape: tuple[int, ...]
    blocks: Iterable[Tensor]

    @classmethod
    def of(cls, tensor: Tensor) -> "Blocks":
        """Those of a tensor at hand."""
        return cls(tensor.dtype, tuple(tensor.shape), in_blocks(tensor))

    @property
    def n_bytes(self) -> int:
        """Bytes of the whole tensor."""
        return math.prod(self.shape) * self.dtype.itemsize


def in_blocks(tensor: Tensor) -> Iterator[Tensor]:
    """A tensor's rows on the CPU, about BLOCK bytes at a time; one without axes as one block."""
    if not tensor.ndim:
        yield tensor.detach().cpu()
        return
    per = rows_per_block(tensor)
    for start in range(0, len(tensor), per):
        yield tensor[start : start + per].detach().cpu().contiguous()


def rows_per_block(tensor: Tensor) -> int:
    """Rows of a tensor that are about BLOCK bytes, at least 1."""
    return max(1, BLOCK // max(1, tensor.dtype.itemsize * math.prod(tensor.shape[1:])))


def in_file_order(tensors: Mapping[str, Blocks]) -> list[str]:
    """Names in the order in which `write_tensors` takes their blocks."""
    order = list(NAMES)
    return sorted(tensors, key=lambda name: (order.index(tensors[name].dtype), name.encode()))


def write_tensors(path: Path, tensors: Mapping[str, Blocks]) -> None:
    """Write named tensors into a new file."""
    names, header, end = in_file_order(tensors), dict[str, Any](), 0
    for name in names:
        blocks, start = tensors[name], end
        end = start + blocks.n_bytes
        header[name] = {"dtype": NAMES[blocks.dtype], "shape": list(blocks.shape), "data_offsets": [start, end]}
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)
    with open(path, "wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for name in names:
            for block in tensors[name].blocks:
                file.write(block.reshape(-1).view(torch.uint8).numpy().data)
        assert file.tell() == 8 + len(text) + end, f"blocks of {path} do not make the shapes they announce"


class StoredTensors(Mapping[str, Readable]):
    """The tensors of a file by name. A name is opened each time something is read of it: pages of a file that stays
    open count as memory."""

    def __init__(self, path: Path) -> None:
        from safetensors import safe_open

        self.path = path
        with safe_open(path, "pt") as file:
            self.names = list(file.keys())

    def __getitem__(self, name: str) -> Readable:
        if name not in self.names:
            raise KeyError(name)
        return _Stored(self.path, name)

    def shape(self, name: str) -> tuple[int, ...]:
        """The shape of a tensor."""
        return tuple(self._about(name).get_shape())

    def dtype(self, name: str) -> torch.dtype:
        """The dtype of a tensor."""
        kind = self._about(name).get_dtype()
        return next(dtype for dtype, theirs in NAMES.items() if theirs == kind)

    def copy_to(self, tensor: Tensor, name: str) -> None:
        """Fill a tensor with one of the same shape from the file, block by block."""
        stored = self[name]
        if not tensor.ndim:
            tensor.copy_(stored[...])
            return
        per = rows_per_block(tensor)
        for start in range(0, len(tensor), per):
            tensor[start : start + per].copy_(stored[start : start + per])

    def _about(self, name: str) -> Any:
        from safetensors import safe_open

        with safe_open(self.path, "pt") as file:
            return file.get_slice(name)

    def __iter__(self) -> Iterator[str]:
        return iter(self.names)

    def __len__(self) -> int:
        return len(self.names)


@dataclass(frozen=True)
class _Stored:
    """See Readable. What is read lies in the file's pages until it is copied."""

    path: Path
    name: str

    def __getitem__(self, index: Any, /) -> Tensor:
        from safetensors import safe_open

        with safe_open(self.path, "pt") as file:
            return file.get_slice(self.name)[index]
