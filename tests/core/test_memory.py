"""Memory that was freed goes back to the system, or is kept for the next step."""

import subprocess
import sys
from pathlib import Path

import pytest

from overtone.core.memory import _library, give_back


def resident() -> int:
    """Bytes of this process that are in memory."""
    lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith("VmRSS"))


GLIBC = pytest.mark.skipif(
    sys.platform != "linux" or _library() is None, reason="this C library does not keep what is freed"
)
ROUNDS = """
import resource
from overtone.core.memory import keep_freed

def fresh_pages():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(8):
        pieces = [bytes([i]) * 10_000_000 for i in range(5)]
        del pieces
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

fresh_pages()
plain = fresh_pages()
keep_freed()
fresh_pages()
print(plain, fresh_pages())
"""


@GLIBC
def test_what_was_freed_is_found_again_once_it_is_kept():
    found = subprocess.run([sys.executable, "-c", ROUNDS], capture_output=True, text=True, check=True).stdout
    plain, kept = map(int, found.split())
    assert kept < plain / 20


@GLIBC
def test_what_was_freed_is_given_back():
    pieces = [bytearray(60_000) for _ in range(3000)]  # each below the size that is mapped apart: 180 MB in all
    last = bytearray(60_000)  # keeps the end of the heap, so that the heap does not shrink by itself
    del pieces
    before = resident()
    give_back()
    assert before - resident() > 100e6 and len(last) == 60_000
