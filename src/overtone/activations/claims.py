"""Claims: several processes fill one folder, and no two of them do the same piece.

A claim is a lock on a file. The system lifts it when its process ends, however that happens, so that a piece which was
begun by a process that died is free again. On machines that share a folder, that folder's file system must know locks.
"""

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def claimed(path: Path, *, wait: bool = False) -> Iterator[bool]:
    """Yield whether this process has the claim while inside; with `wait`, once the others have let go of it."""
    with open(path, "w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError:
            yield False
            return
        yield True
