"""Memory that was freed goes back to the system."""

import sys
from pathlib import Path

import pytest

from overtone.core.memory import _library, give_back


def resident() -> int:
    """Bytes of this process that are in memory."""
    lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith("VmRSS"))


@pytest.mark.skipif(sys.platform != "linux" or _library() is None, reason="this C library does not keep what is freed")
def test_what_was_freed_is_given_back():
    pieces = [bytearray(60_000) for _ in range(3000)]  # each below the size that is mapped apart: 180 MB in all
    last = bytearray(60_000)  # keeps the end of the heap, so that the heap does not shrink by itself
    del pieces
    before = resident()
    give_back()
    assert before - resident() > 100e6 and len(last) == 60_000
