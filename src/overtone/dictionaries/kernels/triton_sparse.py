"""The kernels for GPUs, in Triton. Written from the three sums below; deterministic, no atomic additions.

With places p = (row r_p, latent l_p) and values v_p, over a bag b of places (those of one row, or of one latent):
    bag sums       out_b = sum_{p in b} v_p source[index_p]      decode: bags are rows, index is the latent;
                                                                weight gradients: bags are latents, index is the row
    their totals   total_b = sum_{p in b} v_p                   the bias gradient, from the same pass
    products       g_p = <states[r_p], weight[l_p]>             the gradient of the values
Numbers are added in float32 (float64 for float64 inputs), whatever the dtype of states and weights.

Import this module only where Triton is installed (`dispatch.py` does). On a CPU it runs in Triton's interpreter if
TRITON_INTERPRET=1 is set before Triton is first imported; the tests do that.
"""

from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from overtone.dictionaries.codes import Support
from overtone.dictionaries.kernels.sparse import composed, differentiable

PLACES, SIDE = 16, 256  # a program holds at most so many places times so many columns: 32 numbers for each thread


class Triton:
    """The three products of `sparse.Products`. Results have the wider of the operands' dtypes."""

    def bags(self, values: Tensor, weight: Tensor, at: Support) -> Tensor:
        """(rows, width): for each row, the sum over its places of value x weight row of the place's latent."""
        return _bag_sums(values, weight, at.latents, at.row_starts, None)[0]

    def sum_by_latent(self, values: Tensor, states: Tensor, at: Support) -> tuple[Tensor, Tensor]:
        """(latents, width): for each latent, the sum over its places of value x state of the place's row; and
        (latents,) the sum of the values alone."""
        order, rows, starts = at.by_latent
        return _bag_sums(values, states, rows, starts, order)

    def products(self, states: Tensor, weight: Tensor, at: Support) -> Tensor:
        """(n,) inner products of the state of each place's row with the weight row of its latent."""
        n, width = len(at.latents), weight.shape[1]
        found = weight.new_empty(n, dtype=torch.promote_types(states.dtype, weight.dtype))
        if n:
            with _on(weight.device):
                _products_kernel[(triton.cdiv(n, PLACES),)](  # pyright: ignore[reportIndexIssue]
                    found, states.contiguous(), weight.contiguous(), at.rows, at.latents, n, width,
                    PLACES=PLACES, SIDE=min(SIDE, triton.next_power_of_2(width)), WIDE=_accumulator(found),
                )  # fmt: skip
        return found

    def towards(
        self, values: Tensor, weight: Tensor, constant: Tensor, target: Tensor, at: Support
    ) -> tuple[Tensor, Tensor, Tensor, None]:
        """See `Products`."""
        return composed(self, values, weight, constant, target, at)


TRITON = Triton()
FUNCTIONS = preactivations, decode, reconstruct = differentiable(TRITON)


def _bag_sums(
    values: Tensor, source: Tensor, index: Tensor, starts: Tensor, order: Tensor | None
) -> tuple[Tensor, Tensor]:
    """(bags, width) sums and (bags,) totals of the values. `order`: where the values of the places lie."""
    n_bags, width, dtype = len(starts), source.shape[1], torch.promote_types(values.dtype, source.dtype)
    sums, totals = source.new_empty(n_bags, width, dtype=dtype), source.new_empty(n_bags, dtype=dtype)
    side = min(SIDE, triton.next_power_of_2(width))
    with _on(source.device):
        _bag_sums_kernel[(n_bags, triton.cdiv(width, side))](  # pyright: ignore[reportIndexIssue]
            sums, totals, values.contiguous(), source.contiguous(), index, starts, index if order is None else order,
            n_bags, len(index), width, ORDERED=order is not None, PLACES=PLACES, SIDE=side, WIDE=_accumulator(sums),
        )  # fmt: skip
    return sums, totals


def _accumulator(result: Tensor) -> Any:
    return tl.float64 if result.dtype == torch.float64 else tl.float32


def _on(device: torch.device) -> AbstractContextManager[Any]:
    """Triton launches on the current device, which need not be the tensors'."""
    return torch.cuda.device(device) if device.type == "cuda" else nullcontext()


@triton.jit
def _bag_sums_kernel(
    sums, totals, values, source, index, starts, order, n_bags, n, width,
    ORDERED: tl.constexpr, PLACES: tl.constexpr, SIDE: tl.constexpr, WIDE: tl.constexpr,
):  # fmt: skip
    """One program: one bag, SIDE columns; its places are taken PLACES at a time."""
    bag, side = tl.program_id(0), tl.program_id(1)
    column = side * SIDE + tl.arange(0, SIDE)
    inside = column < width
    begin = tl.load(starts + bag)
    end = tl.load(starts + bag + 1, mask=bag + 1 < n_bags, other=n)
    out = tl.zeros((SIDE,), WIDE)
    total = tl.zeros((PLACES,), WIDE)
    for first in range(begin, end, PLACES):
        place = first + tl.arange(0, PLACES)
        there = place < end
        where = tl.load(order + place, mask=there, other=0) if ORDERED else place
        value = tl.load(values + where, mask=there, other=0.0).to(WIDE)
        row = tl.load(index + place, mask=there, other=0).to(tl.int64)  # row * width can exceed 32 bits
        tile = tl.load(
            source + row[:, None] * width + column[None, :], mask=there[:, None] & inside[None, :], other=0.0
        )
        out += tl.sum(value[:, None] * tile.to(WIDE), axis=0)
        total += value
    tl.store(sums + bag.to(tl.int64) * width + column, out, mask=inside)
    if side == 0:
        tl.store(totals + bag, tl.sum(total, axis=0))


@triton.jit
def _products_kernel(
    found, states, weight, rows, latents, n, width,
    PLACES: tl.constexpr, SIDE: tl.constexpr, WIDE: tl.constexpr,
):  # fmt: skip
    """One program: PLACES places, whose rows are mostly one and the same and stay in the cache."""
    place = tl.program_id(0) * PLACES + tl.arange(0, PLACES)
    there = place < n
    row = tl.load(rows + place, mask=there, other=0).to(tl.int64)
    latent = tl.load(latents + place, mask=there, other=0).to(tl.int64)
    product = tl.zeros((PLACES,), WIDE)
    for first in range(0, width, SIDE):
        column = first + tl.arange(0, SIDE)
        both = there[:, None] & (column < width)[None, :]
        left = tl.load(states + row[:, None] * width + column[None, :], mask=both, other=0.0)
        right = tl.load(weight + latent[:, None] * width + column[None, :], mask=both, other=0.0)
        product += tl.sum(left.to(WIDE) * right.to(WIDE), axis=1)
    tl.store(found + place, product, mask=there)
