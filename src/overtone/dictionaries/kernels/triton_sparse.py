"""The sparse products for GPUs, in Triton. Written from the sums below; deterministic, no atomic additions.

With places p = (row r_p, latent l_p) and values v_p, over a bag b of places (those of one row, or of one latent):
    bag sums       out_b = sum_{p in b} v_p source[index_p]      decode: bags are rows, index is the latent;
                                                                weight gradients: bags are latents, index is the row
    their totals   total_b = sum_{p in b} v_p                   the bias gradient, from the same pass
    products       g_p = <states[r_p], weight[l_p]>             the gradient of the values
    towards        out_b + constant - target_b, its square and its products with the rows that out_b was made of
Numbers are added in float32 (float64 for float64 inputs), whatever the dtype of states and weights. Time goes into
reading rows here and there: where TF32 is allowed they are read as 16-bit numbers with as many bits (`halves.py`).
Programs that run together take the same few columns of all rows, which then stay in the cache.

Import this module only where Triton is installed (`dispatch.py` does). On a CPU it runs in Triton's interpreter if
TRITON_INTERPRET=1 is set before Triton is first imported; the tests do that.
"""

# pyright: reportIndexIssue=false, reportCallIssue=false

from typing import Any, no_type_check

import torch
import triton
import triton.language as tl
from torch import Tensor

from overtone.dictionaries.codes import Support
from overtone.dictionaries.kernels import halves
from overtone.dictionaries.kernels.launch import on
from overtone.dictionaries.kernels.served import served
from overtone.dictionaries.kernels.sparse import Towards, differentiable

# A program holds at most so many places times so many columns, in so many warps. Few columns of all rows stay in the
# cache; what one warp holds needs no barrier. All were chosen on an H100 and an H200.
PLACES, SIDE, WARPS = 2, 512, 2
MANY_PLACES, MANY_SIDE, MANY_WARPS = 8, 256, 1  # for sums of so many rows that SIDE columns of these are NEAR bytes
NEAR = 40 * 2**20
TOWARDS_PLACES, TOWARDS_SIDE = 8, 256


class Triton:
    """The products of `sparse.Products`. Results have the wider of the operands' dtypes."""

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
            with on(weight.device):
                _products_kernel[(triton.cdiv(n, PLACES),)](
                    found, states.contiguous(), weight.contiguous(), at.rows, at.latents, n, width,
                    PLACES=PLACES, SIDE=min(SIDE, triton.next_power_of_2(width)), WIDE=_accumulator(found),
                )  # fmt: skip
        return found

    def towards(self, values: Tensor, weight: Tensor, constant: Tensor, target: Tensor, at: Support) -> Towards:
        """See `Products`."""
        n_rows, n, width = at.n_rows, len(at.latents), weight.shape[1]
        dtype = torch.promote_types(values.dtype, weight.dtype)
        missed = values.new_empty(n_rows, width, dtype=dtype)
        side = min(TOWARDS_SIDE, triton.next_power_of_2(width))
        sides = triton.cdiv(width, side)
        squares, products = (values.new_empty(sides, m, dtype=dtype) for m in (n_rows, n))
        if n_rows:
            source, scales = _source(weight, at.latents)
            with on(weight.device):
                _towards_kernel[(n_rows, sides)](
                    missed, squares, products, values.contiguous(), source, scales, at.latents.int(), at.row_starts,
                    constant.contiguous(), target.contiguous(), n_rows, n, width,
                    SCALED=source is not scales, BY_ROW=constant.ndim == 2,
                    PLACES=TOWARDS_PLACES, SIDE=side, WIDE=_accumulator(missed), num_warps=1,
                )  # fmt: skip
        return Towards(missed, squares.sum(0), products.sum(0))

    def weighed(self, values: Tensor, states: Tensor, lengths: Tensor | None, at: Support) -> None:
        """See `Products`: sums do not wait, since a host would have to."""


TRITON = Triton()
FUNCTIONS = preactivations, decode, reconstruct = differentiable(TRITON)


def _source(rows: Tensor, index: Tensor) -> tuple[Tensor, Tensor]:
    """What rows are read from, with the scales of those that an index names where they are halves; else twice the
    same. Scales lie as places do: read here and there they would take 32 bytes each."""
    if halves.allowed() and served(rows):
        found = halves.halves_of(rows)
        return found.numbers, found.scales.index_select(0, index)
    rows = rows.contiguous()
    return rows, rows


def _bag_sums(
    values: Tensor, source: Tensor, index: Tensor, starts: Tensor, order: Tensor | None
) -> tuple[Tensor, Tensor]:
    """(bags, width) sums and (bags,) totals of the values. `order`: where the values of the places lie."""
    n_bags, width, dtype = len(starts), source.shape[1], torch.promote_types(values.dtype, source.dtype)
    sums, totals = source.new_empty(n_bags, width, dtype=dtype), source.new_empty(n_bags, dtype=dtype)
    many = len(source) * SIDE * (2 if halves.allowed() else 4) > NEAR
    places, side, warps = (MANY_PLACES, MANY_SIDE, MANY_WARPS) if many else (PLACES, SIDE, WARPS)
    side = min(side, triton.next_power_of_2(width))
    values = values.contiguous() if order is None else values.index_select(0, order)
    source, scales = _source(source, index)
    weights = values if source is scales else values * scales
    with on(source.device):
        _bag_sums_kernel[(n_bags, triton.cdiv(width, side))](
            sums, totals, weights, values, source, index, starts, n_bags, len(index), width,
            PLACES=places, SIDE=side, WIDE=_accumulator(sums), num_warps=warps,
        )  # fmt: skip
    return sums, totals


def _accumulator(result: Tensor) -> Any:
    return tl.float64 if result.dtype == torch.float64 else tl.float32


@triton.jit
@no_type_check
def _bag_sums_kernel(
    sums, totals, weights, values, source, index, starts, n_bags, n, width,
    PLACES: tl.constexpr, SIDE: tl.constexpr, WIDE: tl.constexpr,
):  # fmt: skip
    """One program: one bag, SIDE columns; its places are taken PLACES at a time. weights: values, times the scales of
    their rows."""
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
        if side == 0:
            total += tl.load(values + place, mask=there, other=0.0).to(WIDE)
        weight = tl.load(weights + place, mask=there, other=0.0).to(WIDE)
        row = tl.load(index + place, mask=there, other=0).to(tl.int64)  # row * width can exceed 32 bits
        tile = tl.load(
            source + row[:, None] * width + column[None, :], mask=there[:, None] & inside[None, :], other=0.0
        )
        out += tl.sum(weight[:, None] * tile.to(WIDE), axis=0)
    tl.store(sums + bag.to(tl.int64) * width + column, out, mask=inside)
    if side == 0:
        tl.store(totals + bag, tl.sum(total, axis=0))


@triton.jit
@no_type_check
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


@triton.jit
@no_type_check
def _towards_kernel(
    missed, squares, products, values, source, scales, latents, starts, constant, target, n_rows, n, width,
    SCALED: tl.constexpr, BY_ROW: tl.constexpr, PLACES: tl.constexpr, SIDE: tl.constexpr, WIDE: tl.constexpr,
):  # fmt: skip
    """One program: one row, SIDE columns. Numbers are read twice: held meanwhile, they leave fewer programs room."""
    row, side = tl.program_id(0), tl.program_id(1)
    column = side * SIDE + tl.arange(0, SIDE)
    inside = column < width
    here = row.to(tl.int64) * width + column
    begin = tl.load(starts + row)
    end = tl.load(starts + row + 1, mask=row + 1 < n_rows, other=n)
    out = tl.zeros((SIDE,), WIDE)
    for first in range(begin, end, PLACES):
        place = first + tl.arange(0, PLACES)
        weight, scale, tile = _rows(
            values, source, scales, latents, place, place < end, column, inside, width, SCALED, WIDE
        )
        out += tl.sum(weight[:, None] * tile, axis=0)
    out += tl.load(constant + (here if BY_ROW else column), mask=inside, other=0.0).to(WIDE)
    error = tl.where(inside, out - tl.load(target + here, mask=inside, other=0.0).to(WIDE), 0.0)
    tl.store(missed + here, error, mask=inside)
    tl.store(squares + side * n_rows + row, tl.sum(error * error, axis=0))
    products += side.to(tl.int64) * n
    for first in range(begin, end, PLACES):
        place = first + tl.arange(0, PLACES)
        weight, scale, tile = _rows(
            values, source, scales, latents, place, place < end, column, inside, width, SCALED, WIDE
        )
        tl.store(products + place, scale * tl.sum(tile * error[None, :], axis=1), mask=place < end)


@triton.jit
@no_type_check
def _rows(
    values, source, scales, latents, place, there, column, inside, width, SCALED: tl.constexpr, WIDE: tl.constexpr
):
    """Rows of some places: what their numbers are multiplied by in a sum and in products, and the numbers."""
    latent = tl.load(latents + place, mask=there, other=0).to(tl.int64)  # latent * width can exceed 32 bits
    value = tl.load(values + place, mask=there, other=0.0).to(WIDE)
    if SCALED:
        scale = tl.load(scales + place, mask=there, other=0.0).to(WIDE)
    else:
        scale = tl.full(value.shape, 1.0, WIDE)
    numbers = tl.load(
        source + latent[:, None] * width + column[None, :], mask=there[:, None] & inside[None, :], other=0.0
    )
    return value * scale, scale, numbers.to(WIDE)
