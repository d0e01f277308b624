"""Large tensors of a training step, used again and again: on a CPU a fresh page costs more than the arithmetic on it.

`take` hands out memory that nobody refers to any more, so a tensor may be kept as long as it is needed and is simply
forgotten afterwards. What lies idle is bounded and returned by `release`. It is in huge pages, where the system has
any: rows that are read here and there then need fewer look-ups of addresses.
"""

import math
import mmap
import threading
from collections.abc import Callable

import torch
from torch import Tensor

SMALL = 2**18  # bytes from which memory is kept; the C library does well with less
HUGE = 2**21  # bytes of a huge page
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
        storage = next((one for one in known if _count(one._cdata) == 1), None)
        if storage is None:
            storage = _fresh(n)
            known.append(storage)
        return torch.empty(0).set_(storage, 0, shape)  # pyright: ignore[reportCallIssue]

    def release(self) -> None:
        """Forget all memory; what is still referred to stays with those who do."""
        self.kept.clear()


def _fresh(n: int) -> torch.UntypedStorage:
    """Memory of n float32 numbers, in huge pages if they fill one."""
    if 4 * n < HUGE or not hasattr(mmap, "MADV_HUGEPAGE"):
        return torch.empty(n).untyped_storage()
    try:
        pages = mmap.mmap(-1, -(-4 * n // HUGE) * HUGE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        pages.madvise(mmap.MADV_HUGEPAGE)
    except OSError:
        return torch.empty(n).untyped_storage()
    return torch.frombuffer(pages, dtype=torch.float32, count=n).untyped_storage()


class _Local(threading.local):
    def __init__(self) -> None:
        self.pool = Pool()


_local = _Local()


def take(*shape: int) -> Tensor:
    """An uninitialised float32 CPU tensor, from memory of this thread that is no longer in use where there is any."""
    return _local.pool.take(*shape)


def like(tensor: Tensor) -> Tensor:
    """An uninitialised tensor of the same kind that is kept for long; on a CPU in huge pages if it fills one."""
    if tensor.device.type != "cpu" or tensor.dtype != torch.float32:
        return torch.empty_like(tensor)
    return torch.empty(0).set_(_fresh(tensor.numel()), 0, tensor.shape)  # pyright: ignore[reportCallIssue]


def release() -> None:
    """Give back this thread's idle memory and what kernels keep between steps."""
    _local.pool.release()
    for forget in ON_RELEASE:
        forget()
