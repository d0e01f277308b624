"""Rows of bf16 numbers, multiplied by torch."""

import torch
from torch import Tensor


class BFloat16:
    """Eight binary digits. Steps are powers of two, by which numbers are multiplied without loss."""

    name, dtype, widest, even = "bf16", torch.bfloat16, 2**31, 1

    def is_fast(self) -> bool:
        """Whether the processor has instructions for them."""
        known = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
        return any(getattr(torch.cpu, name, lambda: False)() for name in known)

    def dithers(self, width: int) -> None:
        """As in `rounded.Kind`."""

    def steps(self, largest: Tensor) -> Tensor:
        """As in `rounded.Kind`."""
        return largest.log2().ceil().exp2()

    def nearest(self, numbers: Tensor) -> Tensor:
        """As in `rounded.Kind`."""
        return numbers.bfloat16().float()

    def packed(self, rounded: Tensor, steps: Tensor) -> Tensor:
        """As in `rounded.Kind`."""
        return rounded.mul_(steps.bfloat16().unsqueeze(1)).T

    def products(
        self, rounded: Tensor, packed: Tensor, steps: Tensor, added: Tensor | None, magnitudes: bool = False
    ) -> Tensor:
        """As in `rounded.Kind`."""
        if added is None:
            found = torch.mm(rounded, packed)
        else:
            found = torch.addmm((1.01 * added).bfloat16(), rounded, packed)
        return found.abs_() if magnitudes else found


BF16 = BFloat16()
