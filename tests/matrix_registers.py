"""Kernels that use matrix registers (AMX), or those that do not, on any processor."""

import zlib
from functools import cache
from pathlib import Path

from overtone.dictionaries.kernels.native import MACHINE, Native

HEADER = Path(__file__).with_name("pretend_amx.h")
WITHOUT = (MACHINE, "-mno-amx-tile", "-mno-amx-int8", "-mno-amx-bf16")
BY_HAND = (*WITHOUT, f"-DVERSION={zlib.crc32(HEADER.read_bytes())}", "-include", str(HEADER))


@cache
def here() -> bool:
    """Whether this processor has them and this process may use them. Raises BuildError without a compiler."""
    return bool(Native(MACHINE).amx)


def using() -> tuple[str, ...]:
    """Compiler options for kernels that use them, by hand where there are none."""
    return (MACHINE,) if here() else BY_HAND


def otherwise() -> tuple[str, ...]:
    """Compiler options for the kernels that this machine does not take: without them if it has them, else by hand."""
    return WITHOUT if here() else BY_HAND
