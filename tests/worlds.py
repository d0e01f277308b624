"""Processes that train together, played by threads of this one: fast enough to try every preset."""

import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from overtone.core.tensor_files import StoredTensors
from overtone.training.checkpoint import save_checkpoint
from overtone.training.distributed.world import World
from overtone.training.run import Run


@dataclass
class Table:
    """Where the threads meet and lay down what they have."""

    size: int
    meeting: threading.Barrier = None  # type: ignore[assignment]
    laid: list[Any] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.meeting, self.laid = threading.Barrier(self.size, timeout=150), [None] * self.size


class ThreadWorld:
    """What `World` is, between threads."""

    spans, span, any, first = World.spans, World.span, World.any, World.first

    def __init__(self, rank: int, table: Table) -> None:
        self.rank, self.size, self.table = rank, table.size, table

    def lengths(self, part: torch.Tensor) -> list[int]:
        """The lengths of all threads' parts."""
        return [len(found) for found in self.gather(part)]

    def gather(self, part: torch.Tensor, counts: list[int] | None = None) -> list[torch.Tensor]:
        """The parts of all threads, whose lengths must be those that are claimed."""
        self.table.laid[self.rank] = part.detach().clone()
        self.table.meeting.wait()
        parts = [laid.clone() for laid in self.table.laid]
        self.table.meeting.wait()
        assert counts is None or counts == [len(found) for found in parts]
        return parts

    def add(self, tensor: torch.Tensor) -> torch.Tensor:
        """The sum, in place."""
        return tensor.copy_(torch.stack(self.gather(tensor)).sum(0))

    def highest(self, tensor: torch.Tensor) -> torch.Tensor:
        """The maximum, in place."""
        return tensor.copy_(torch.stack(self.gather(tensor)).amax(0))

    def to_first(self, part: torch.Tensor, counts: Sequence[int]) -> Iterator[torch.Tensor]:
        """The parts of all threads, for the first one."""
        for found in self.gather(part, list(counts)):
            yield from found.split(max(1, len(found) // 2)) if self.first and len(found) else ()


def written(run: Run, folder: Path, world: Any = None) -> StoredTensors:
    """The tensors of a run as one process has them, out of a checkpoint that the threads write together."""
    save_checkpoint(folder, [run], {}, {}, first=world is None or world.first)
    if world is not None:
        world.any()
    return StoredTensors(folder / "run-0.safetensors")


def together(size: int, work: Callable[[Any], Any]) -> list[Any]:
    """What `work(world)` returns in each of `size` threads. An error in one ends all, and is raised."""
    table, found, errors, alone = Table(size), [None] * size, [], []

    def one(rank: int) -> None:
        try:
            found[rank] = work(ThreadWorld(rank, table))
        except threading.BrokenBarrierError as error:
            alone.append(error)  # another one had an error, or did not come
        except BaseException as error:  # noqa: BLE001  (raised below, in the test's own thread)
            errors.append(error)
            table.meeting.abort()

    threads = [threading.Thread(target=one, args=(rank,)) for rank in range(size)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if errors or alone:
        raise [*errors, *alone][0]
    return found
