"""Work split over torch's number of threads, for functions that release the interpreter lock (C code does)."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from typing import TypeVar

import torch

Found = TypeVar("Found")


def over(n: int, grain: int, work: Callable[[int, int], Found]) -> list[Found]:
    """What work(first, last) returns on ranges that cover 0..n in order, as many as torch may use threads. Each
    starts at a multiple of `grain`."""
    grains = -(-n // grain)
    parts = max(1, min(torch.get_num_threads(), grains))
    edges = [min(n, grain * (grains * i // parts)) for i in range(parts + 1)]
    if parts == 1:
        return [work(0, n)]
    later = [_pool(parts - 1).submit(work, *edges[i : i + 2]) for i in range(1, parts)]
    return [work(*edges[:2]), *(future.result() for future in later)]


@cache
def _pool(size: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(size, thread_name_prefix="overtone-kernel")
