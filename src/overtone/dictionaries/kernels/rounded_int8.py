"""Rows of int8 numbers: products by oneDNN's linear map for quantised models, which torch brings along."""

import torch
from torch import Tensor

from overtone.dictionaries.kernels.rounded import Dither

SURE = 9.0  # deviations within which what rounding takes away lies
EVEN = 64 if getattr(torch.cpu, "_is_amx_tile_supported", lambda: False)() else 0  # numbers that AMX multiplies at once
ZERO = 128  # what states are raised by where the operator is faster with unsigned ones


class Int8:
    """Integers up to 127. Sums have 32 bits."""

    name, dtype, widest = "int8", torch.int8, 2**16
    even = EVEN or 1

    def is_fast(self) -> bool:
        """Whether the processor has VNNI instructions and the operator does what it should."""
        return getattr(torch.cpu, "_is_vnni_supported", lambda: False)() and self._works()

    def __init__(self) -> None:
        self._draws = torch.Generator()

    def dithers(self, width: int) -> tuple[Dither, Dither] | None:
        """As in `rounded.Kind`. What rounding takes away is uniform once an offset is subtracted from products again;
        else it is one of two numbers a step apart."""
        if width < SURE**2:
            return None
        offsets = torch.rand(2, width, generator=self._draws) - 0.5
        return Dither(offsets[0], SURE / 12**0.5), Dither(offsets[1], SURE / 2)

    def steps(self, largest: Tensor) -> Tensor:
        """As in `rounded.Kind`."""
        return largest / 126.5

    def nearest(self, numbers: Tensor) -> Tensor:
        """As in `rounded.Kind`."""
        return numbers.round_()

    def packed(self, rounded: Tensor, steps: Tensor) -> Tensor:
        """As in `rounded.Kind`. The operator's own packing takes longer than it saves: 11 ms instead of 2 for 8192 x
        512 weights, for products of 4096 rows in 40 ms instead of 45."""
        return torch.ops.aten._mkldnn_transpose(rounded.to_mkldnn(), 0, 1)

    def products(
        self, rounded: Tensor, packed: Tensor, steps: Tensor, added: Tensor | None, magnitudes: bool = False
    ) -> Tensor:
        """As in `rounded.Kind`."""
        return _linear(rounded, packed, steps, added, 1.0, 0, torch.bfloat16, magnitudes)

    def whole(
        self, rounded: Tensor, packed: Tensor, steps: Tensor, added: Tensor | None, step: float, zero: int = 0,
        magnitudes: bool = False,
    ) -> Tensor:  # fmt: skip
        """As in `rounded.Counting`."""
        return _linear(rounded, packed, steps, added, step, zero, torch.uint8, magnitudes)

    def _works(self) -> bool:
        return all(self._works_at(width) for width in (60, 64, 65, 192))

    def _works_at(self, width: int) -> bool:
        small, large = torch.arange(width, dtype=torch.int8) % 5 - 2, torch.full((width,), 127, dtype=torch.int8)
        rows, weight = torch.stack([small, large, -large]), torch.stack([small.roll(7), small, large, -large])
        steps, added = torch.tensor([0.5, 1.0, 2.0, 0.25]), torch.arange(4.0)
        truth = rows.float() @ weight.float().T * steps
        try:
            packed = self.packed(weight, steps)
            found = [self.products(rows, packed, steps, added, sided).float() for sided in (False, True)]
            counted = [self.whole(rows, packed, steps, added, 8.0, 3, sided) for sided in (False, True)]
        except (AttributeError, NotImplementedError, RuntimeError, TypeError):
            return False
        truths = truth + added, (truth + added).abs()
        are_near = all(torch.allclose(a, b, rtol=2.0**-8) for a, b in zip(found, truths, strict=True))
        return are_near and all(
            bool(((a.float() - (b / 8 + 3).clamp(0, 255)).abs() <= 0.501).all())
            for a, b in zip(counted, truths, strict=True)
        )


def _linear(
    rounded: Tensor, packed: Tensor, steps: Tensor, added: Tensor | None, step: float, zero: int, dtype: torch.dtype,
    magnitudes: bool,
) -> Tensor:  # fmt: skip
    # Signed ones are faster with AMX. But of other widths they give wrong sums there (oneDNN 3.12).
    zero_point = 0 if EVEN and rounded.shape[1] % EVEN == 0 else ZERO
    raised = rounded.view(torch.uint8) ^ ZERO if zero_point else rounded
    then = ("leaky_relu", [-1.0]) if magnitudes else ("none", [])
    zeros = torch.zeros(len(steps), dtype=torch.int32)
    return torch.ops.onednn.qlinear_pointwise(
        raised, 1.0, zero_point, packed, steps, zeros, added, step, zero, dtype, *then, ""
    )


INT8 = Int8()
