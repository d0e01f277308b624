"""The processes that train together, as torch.distributed knows them, and what they say to each other.

`torchrun` starts them and tells each its number; gloo carries tensors on a CPU, nccl those on GPUs.
"""

import hashlib
import os
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta

import torch
import torch.distributed as dist
from torch import Tensor

from overtone.core.errors import SettingError, WorkerError
from overtone.core.tensor_files import rows_per_block

PATIENCE = timedelta(minutes=10)  # without a word from the others, a process gives up


@dataclass(frozen=True)
class World:
    """rank: this process's number, from 0; size: how many there are."""

    rank: int
    size: int

    @classmethod
    def join(cls) -> "World":
        """The processes that torchrun started with this one. Raises SettingError if it did not."""
        if not dist.is_initialized():
            if "RANK" not in os.environ or "WORLD_SIZE" not in os.environ:
                raise SettingError(
                    "split= is for several processes, but this one was started alone. Start it with "
                    "`torchrun --nproc-per-node N ...`, or leave split out."
                )
            with _speaking("nobody yet"):
                dist.init_process_group("cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo", timeout=PATIENCE)
        return cls(dist.get_rank(), dist.get_world_size())

    def leave(self) -> None:
        """Part from the others; afterwards `join` can be called no more."""
        if dist.is_initialized():
            dist.destroy_process_group()

    @property
    def first(self) -> bool:
        """Whether this process writes files and shows progress."""
        return self.rank == 0

    def place(self, device: str) -> str:
        """The device of this process, where all are asked to use the same kind."""
        return f"cuda:{os.environ.get('LOCAL_RANK', 0)}" if device == "cuda" else device

    def spans(self, n: int) -> list[tuple[int, int]]:
        """For each process, its first thing and the next one's first, when n are split evenly and in order."""
        return [(n * rank // self.size, n * (rank + 1) // self.size) for rank in range(self.size)]

    def span(self, n: int) -> tuple[int, int]:
        """The span of this process."""
        return self.spans(n)[self.rank]

    def add(self, tensor: Tensor) -> Tensor:
        """The sum over all processes, in place."""
        with _speaking(str(self)):
            dist.all_reduce(tensor)
        return tensor

    def highest(self, tensor: Tensor) -> Tensor:
        """The elementwise maximum over all processes, in place."""
        with _speaking(str(self)):
            dist.all_reduce(tensor, op=dist.ReduceOp.MAX)
        return tensor

    def lengths(self, part: Tensor) -> list[int]:
        """How long the first axis of each process's part is."""
        counts = torch.zeros(self.size, dtype=torch.int64, device=part.device)
        counts[self.rank] = len(part)
        return self.add(counts).tolist()

    def gather(self, part: Tensor, counts: list[int] | None = None) -> list[Tensor]:
        """The parts of all processes in order; they may differ in their first axis. counts: their lengths, if known."""
        part = part.contiguous()
        counts = self.lengths(part) if counts is None else counts
        padded = part.new_zeros(max(counts), *part.shape[1:])
        padded[: len(part)] = part
        parts = [torch.empty_like(padded) for _ in counts]
        with _speaking(str(self)):
            dist.all_gather(parts, padded)
        return [found[:n] for found, n in zip(parts, counts, strict=True)]

    def to_first(self, part: Tensor, counts: Sequence[int]) -> Iterator[Tensor]:
        """For the first process the parts of all in order, on the CPU and block by block; for the others nothing: they
        give theirs away. All go through to the end. counts: how long the first axis of each part is."""
        per = rows_per_block(part)
        for rank, count in enumerate(counts):
            for start in range(0, count, per):
                rows = min(per, count - start)
                if rank == self.rank:
                    block = part[start : start + rows].detach().cpu().contiguous()
                elif self.first:
                    block = torch.empty(rows, *part.shape[1:], dtype=part.dtype)
                else:
                    continue
                if rank:
                    with _speaking(str(self)):
                        dist.recv(block, src=rank) if self.first else dist.send(block, dst=0)
                if self.first:
                    yield block

    def any(self, *flags: bool) -> list[bool]:
        """For each flag, whether it is true in any of the processes."""
        marks = torch.tensor([*flags, False], dtype=torch.uint8)
        return [bool(flag) for flag in self.highest(marks).tolist()[:-1]]

    def require_same(self, text: str, what: str) -> None:
        """Raise SettingError unless all processes have the same text."""
        mark = torch.tensor(list(hashlib.sha256(text.encode()).digest()), dtype=torch.int64)
        if len({tuple(found.tolist()) for found in self.gather(mark)}) > 1:
            raise SettingError(
                f"the {self.size} processes differ in {what}. Start all of them with the same command on the same data."
            )

    def __str__(self) -> str:
        return f"process {self.rank} of {self.size}"


@contextmanager
def _speaking(who: str) -> Iterator[None]:
    """Re-tell what goes wrong between processes."""
    try:
        yield
    except RuntimeError as error:
        raise WorkerError(
            f"{who} lost the others in the middle of a training ({_cause(error)}). One of them has ended: look for the "
            "first error among their messages. What was saved is complete; start all of them again to go on from there."
        ) from None


def _cause(error: RuntimeError) -> str:
    """The first sentence, without the place in torch's own source that it begins with."""
    return re.sub(r"^\[\S+:\d+\] ", "", str(error).splitlines()[0]).partition(". ")[0][:120]
