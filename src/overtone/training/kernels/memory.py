"""Large tensors of a training step, used again and again: on a CPU a fresh page costs more than the arithmetic on it.

`take` hands out memory that nobody refers to any more, so a tensor may be kept as long as it is needed and is simply
forgotten afterwards. What lies idle is bounded and returned by `release`.
"""

import math
import threading
from collections.abc import Callable

import torch
from torch import Tensor

SMALL = 2**18  # bytes from which memory is kept; the C library does well with less
ON_RELEASE: list[Callable[[], None]] = []  # what else is kept between steps is forgotten by these
_count = getattr(torch._C, "_storage_Use_Count", None)  # without it memory is not used again


class Pool:
    """Float32 memory by size. Not shared between threads."""

    def __init__(self) -> None:
        self.kept: dict[int, list[torch.UntypedStorage]] = {}

    def take(self, *shape: int) -> Tensor:
        """An uninitialised float32 CPU tensor."""
        n = math.prod(shape)
        if 4 * n < SMALL or _count is None:
            return torch.empty(shape)
        known = self.kept.setdefault(n, [])
        for storage in known:
            if _count(storage._cdata) == 1:
                return torch.empty(0).set_(storage, 0, shape)  # pyright: ignore[reportCallIssue]
        fresh = torch.empty(shape)
        known.append(fresh.untyped_storage())
        return fresh

    def release(self) -> None:
        """Forget all memory; what is still referred to stays with those who do."""
        self.kept.clear()


class _Local(threading.local):
    def __init__(self) -> None:
        self.pool = Pool()


_local = _Local()


def take(*shape: int) -> Tensor:
    """An uninitialised float32 CPU tensor, from memory of this thread that is no longer in use where there is any."""
    return _local.pool.take(*shape)


def release() -> None:
    """Give back this thread's idle memory and what kernels keep between steps."""
    _local.pool.release()
    for forget in ON_RELEASE:
        forget()
