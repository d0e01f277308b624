"""Rows as numbers of 16 bits with a power of two for each: 11 significant bits, as many as TF32 keeps, in half the
bytes.

They nominate; where torch may round float32 operands of matrix products (`torch.set_float32_matmul_precision` high or
medium) they also are what is multiplied. A row's largest number comes to lie between 2^14 and 2^15, so that what is
2^28 times smaller still has all of its bits and what is smaller yet is wrong by less than 2^-39 of the largest.

Those of parameters are kept until these change (`kept.py`).

Import this module only where Triton is installed.
"""

# pyright: reportIndexIssue=false, reportCallIssue=false

from dataclasses import dataclass
from typing import no_type_check

import torch
import triton
import triton.language as tl
from torch import Tensor

from overtone.dictionaries.kernels.kept import keep, kept
from overtone.dictionaries.kernels.launch import on

SIDE = 4096  # columns of a row at a time


@dataclass(frozen=True, eq=False)
class Halves:
    """numbers: (rows, width) float16; scales: (rows,) float32 powers of two, whose products with the numbers are the
    rows; lengths: (rows,) float32 lengths of the rows before they were rounded."""

    numbers: Tensor
    scales: Tensor
    lengths: Tensor


def allowed() -> bool:
    """Whether operands of products may be rounded to 11 bits."""
    return torch.get_float32_matmul_precision() != "highest"


def halves_of(rows: Tensor) -> Halves:
    """Of (rows, width) float32 numbers, rounded to the nearest. What is not finite stays so."""
    known = kept(Halves, rows)
    if known is not None:
        return known.found
    found = _rounded(rows)
    keep(rows, found)
    return found


def _rounded(rows: Tensor) -> Halves:
    (n, width), rows = rows.shape, rows.contiguous()
    found = Halves(torch.empty_like(rows, dtype=torch.float16), rows.new_empty(n), rows.new_empty(n))
    if n:
        side = min(SIDE, triton.next_power_of_2(width))
        with on(rows.device):
            _halves_kernel[(n,)](
                found.numbers, found.scales, found.lengths, rows, width, AT_ONCE=width <= side, SIDE=side
            )  # fmt: skip
    return found


@triton.jit
@no_type_check
def powers(largest):
    """The power of two that brings a row's largest number to where it shall lie, and its inverse."""
    exponent = (largest.to(tl.int32, bitcast=True) >> 23) - 127
    up = tl.minimum(14 - exponent, 100)  # rows of zeros stay zeros
    return ((up + 127) << 23).to(tl.float32, bitcast=True), ((127 - up) << 23).to(tl.float32, bitcast=True)


@triton.jit
@no_type_check
def _halves_kernel(numbers, scales, lengths, rows, width, AT_ONCE: tl.constexpr, SIDE: tl.constexpr):
    """One program: one row."""
    row = tl.program_id(0).to(tl.int64)
    rows += row * width
    numbers += row * width
    column = tl.arange(0, SIDE)
    largest, squares = tl.zeros((SIDE,), tl.float32), tl.zeros((SIDE,), tl.float32)
    number = tl.zeros((SIDE,), tl.float32)
    for first in range(0, width, SIDE):
        number = tl.load(rows + first + column, mask=first + column < width, other=0.0)
        largest = tl.maximum(largest, tl.abs(number))
    factor, scale = powers(tl.max(largest, axis=0))
    tl.store(scales + row, scale)
    for first in range(0, width, SIDE):
        inside = first + column < width
        if not AT_ONCE:
            number = tl.load(rows + first + column, mask=inside, other=0.0)
        number *= factor
        squares += number * number
        tl.store(numbers + first + column, number.to(tl.float16), mask=inside)
    tl.store(lengths + row, tl.sqrt(tl.sum(squares, axis=0)) * scale)  # squares of the rows themselves might not fit
