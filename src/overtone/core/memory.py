"""Memory that was freed, given back to the system."""

import ctypes
import gc
from functools import cache
from typing import Any


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
