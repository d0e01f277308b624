"""States in a dictionary's units and less its centre, in one pass, in Triton.

Import this module only where Triton is installed.
"""

# pyright: reportIndexIssue=false, reportCallIssue=false

from typing import no_type_check

import torch
import triton
import triton.language as tl
from torch import Tensor

from overtone.dictionaries.kernels import native_rows
from overtone.dictionaries.kernels.launch import on
from overtone.dictionaries.normalisers import Normaliser

SIDE = 4096  # columns at a time


def in_units(normaliser: Normaliser, x: Tensor, centre: Tensor | float) -> tuple[Tensor, Tensor]:
    """As `native_rows.in_units`."""
    factor = native_rows.common_factor(normaliser, x, centre)
    if factor is None or not isinstance(centre, Tensor):
        return native_rows.in_units(normaliser, x, centre)
    (n, width), inputs, centred = x.shape, torch.empty_like(x), torch.empty_like(x)
    side = min(SIDE, triton.next_power_of_2(width))
    if n:
        with on(x.device):
            _in_units_kernel[(n, triton.cdiv(width, side))](
                inputs, centred, x, factor, centre.contiguous(), width, SIDE=side, num_warps=max(1, min(8, side // 512))
            )
    return inputs, centred


@triton.jit
@no_type_check
def _in_units_kernel(inputs, centred, x, factor, centre, width, SIDE: tl.constexpr):
    """One program: one row, SIDE columns."""
    column = tl.program_id(1) * SIDE + tl.arange(0, SIDE)
    inside, here = column < width, tl.program_id(0).to(tl.int64) * width + column
    found = tl.load(x + here, mask=inside, other=0.0) * tl.load(factor)
    tl.store(inputs + here, found, mask=inside)
    tl.store(centred + here, found - tl.load(centre + column, mask=inside, other=0.0), mask=inside)
