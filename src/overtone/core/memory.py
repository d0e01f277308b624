"""Memory that was freed: kept for the next step while there is one, else given back to the system."""

import ctypes
import gc
from functools import cache
from typing import Any

_TRIM, _MMAP = -1, -3  # names of mallopt: what is freed at the heap's end, and what is not of the heap
_LARGEST = 2**25  # bytes; glibc comes to it by itself, with twice as many to trim, once so much was freed in one piece


@cache
def _library() -> Any:
    """The C library of this process, where it can say what it keeps (glibc); else None."""
    try:
        found = ctypes.CDLL(None)
        return found if hasattr(found, "malloc_trim") else None
    except (OSError, TypeError):  # another system has no such handle
        return None


def give_back() -> None:
    """Give back what this process has freed: glibc keeps it for later, which after a stage that needed much counts
    against everything that runs beside. Nothing happens with other C libraries."""
    gc.collect()
    if (library := _library()) is not None:
        library.malloc_trim(0)


@cache
def keep_freed() -> None:
    """Let glibc keep what is freed, up to 64 MiB at a time, so that the next step finds pages that are there: as
    delivered it gives large pieces back at once and asks for them again. Nothing happens with other C libraries."""
    if (library := _library()) is not None:
        library.mallopt(_MMAP, _LARGEST)
        library.mallopt(_TRIM, 2 * _LARGEST)
