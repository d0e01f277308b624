"""What follows the gradients, in Triton: one pass for the norm and what lies along unit rows, one for Adam and lengths.

Parameters and moments are read and written once; torch's own operators need twice as many passes over them.

Import this module only where Triton is installed.
"""

# pyright: reportIndexIssue=false, reportCallIssue=false

from collections.abc import Sequence
from typing import no_type_check

import torch
import triton
import triton.language as tl
from torch import Tensor
from torch.autograd.graph import increment_version

from overtone.dictionaries.kernels.halves import Halves, powers
from overtone.dictionaries.kernels.kept import kept
from overtone.dictionaries.kernels.launch import on
from overtone.dictionaries.kernels.served import served
from overtone.dictionaries.kernels.triton_int8 import Weights, rounded
from overtone.dictionaries.kernels.update import EPSILON, LEAST, Moments, Update, parted

WIDEST = 2**14  # numbers of a row that one program holds
SIDE = 4096  # numbers of a row at a time where none need be held


class TritonUpdate(Update):
    """For matrices of float32; torch does the rest."""

    @torch.no_grad()
    def norm(self, everything: Sequence[Moments]) -> Tensor:
        """As in `Update`, but that gradients stay as they are and `along` is kept."""
        mine, others = parted(everything, _is_mine)
        squares = [_squares(one).sum(dtype=torch.float64) for one in mine]
        squares += [super().norm(others).double().square()] if others else []
        return torch.stack(squares).sum().sqrt().float() if squares else torch.zeros(())

    @torch.no_grad()
    def adam(self, everything: Sequence[Moments], lr: float, betas: tuple[float, float], scale: Tensor | None) -> None:
        """As in `Update`."""
        mine, others = parted(everything, _is_mine)
        if others:
            super().adam(others, lr, betas, scale)
        if not mine:
            return
        for one in mine:
            one.step.add_(1)
        steps = torch.stack([one.step for one in mine]).double()
        # what a host would have to wait for: the size of a step, and what squares are divided by
        sizes = torch.stack([lr / (1 - betas[0] ** steps), (1 - betas[1] ** steps).sqrt()], 1).float()
        for one, of_one in zip(mine, sizes, strict=True):
            _adam(one, of_one, betas, scale)


def _is_mine(one: Moments) -> bool:
    """Whether the kernels can work on it."""
    return (
        one.parameter.ndim == 2
        and 0 < one.parameter.shape[1] <= WIDEST
        and len(one.parameter) > 0
        and served(one.parameter, one.gradient, one.mean, one.square)
    )


def _warps(numbers: int) -> int:
    return max(1, min(16, numbers // 512))


def _squares(one: Moments) -> Tensor:
    """(n,) squared lengths of a gradient's rows, without what lies along unit rows, which is kept in `along`."""
    n, width = one.parameter.shape
    squares, side = one.gradient.new_empty(n), min(SIDE, triton.next_power_of_2(width))
    one.along = one.gradient.new_empty(n) if one.unit else None
    with on(squares.device):
        _squares_kernel[(n,)](
            squares, squares if one.along is None else one.along, one.gradient, one.parameter, width,
            UNIT=one.unit, SIDE=side, num_warps=_warps(side),
        )  # fmt: skip
    return squares


def _adam(one: Moments, sizes: Tensor, betas: tuple[float, float], scale: Tensor | None) -> None:
    n, width = one.parameter.shape
    side, in_16, in_8 = triton.next_power_of_2(width), kept(Halves, one.parameter), kept(Weights, one.parameter)
    new = [sizes] * 10  # what need not be renewed is not touched
    if in_16 is not None:
        new[:3] = in_16.found.numbers, in_16.found.scales, in_16.found.lengths
    if in_8 is not None:
        of, frame = in_8.found.bytes, in_8.found.frame
        new[3:] = of.numbers, of.steps, of.lengths, of.shared, frame.by[1], frame.noise[1], frame.noise[0]
    with on(one.parameter.device):
        _adam_kernel[(n,)](
            one.parameter, one.gradient, one.mean, one.square, sizes if one.along is None else one.along, sizes,
            sizes if scale is None else scale, *new, *betas, EPSILON, LEAST, width, UNIT=one.along is not None,
            SCALED=scale is not None, HALVES=in_16 is not None, BYTES=in_8 is not None, SIDE=side,
            num_warps=_warps(2 * side),
        )  # fmt: skip
    for changed in (one.parameter, one.mean, one.square):
        increment_version(changed)
    for renewed in (in_16, in_8):
        if renewed is not None:
            renewed.version = one.parameter._version


@triton.jit
@no_type_check
def _squares_kernel(squares, along, gradient, parameter, width, UNIT: tl.constexpr, SIDE: tl.constexpr):
    """One program: one row."""
    row = tl.program_id(0).to(tl.int64)
    of_g, of_p, both = tl.zeros((SIDE,), tl.float32), tl.zeros((SIDE,), tl.float32), tl.zeros((SIDE,), tl.float32)
    for first in range(0, width, SIDE):
        column = first + tl.arange(0, SIDE)
        g = tl.load(gradient + row * width + column, mask=column < width, other=0.0)
        of_g += g * g
        if UNIT:
            p = tl.load(parameter + row * width + column, mask=column < width, other=0.0)
            of_p += p * p
            both += g * p
    square = tl.sum(of_g, axis=0)
    if UNIT:
        a = tl.sum(both, axis=0)
        tl.store(along + row, a)
        square += a * a * (tl.sum(of_p, axis=0) - 2)
    tl.store(squares + row, tl.maximum(square, 0.0))


@triton.jit
@no_type_check
def _adam_kernel(
    parameter, gradient, mean, square, along, sizes, scale, numbers, scales, lengths, numbers_8, steps_8, lengths_8,
    shared_8, by, noise, other, beta_1, beta_2, epsilon, least, width,
    UNIT: tl.constexpr, SCALED: tl.constexpr, HALVES: tl.constexpr, BYTES: tl.constexpr, SIDE: tl.constexpr,
):  # fmt: skip
    """One program: one row, all of it."""
    row, column = tl.program_id(0).to(tl.int64), tl.arange(0, SIDE)
    inside, here = column < width, row * width + column
    size, root = tl.load(sizes), tl.load(sizes + 1)
    p = tl.load(parameter + here, mask=inside, other=0.0)
    g = tl.load(gradient + here, mask=inside, other=0.0)
    m = tl.load(mean + here, mask=inside, other=0.0)
    v = tl.load(square + here, mask=inside, other=0.0)
    if UNIT:
        g -= tl.load(along + row) * p
    if SCALED:
        g *= tl.load(scale)
    m += (1 - beta_1) * (g - m)
    v = beta_2 * v + (1 - beta_2) * g * g
    p -= size * m / (tl.sqrt(v) / root + epsilon)
    if UNIT:
        length = tl.sqrt(tl.sum(tl.where(inside, p * p, 0.0), axis=0))
        p = p / tl.maximum(length, least)
    tl.store(mean + here, m, mask=inside)
    tl.store(square + here, v, mask=inside)
    tl.store(parameter + here, p, mask=inside)
    if BYTES:
        found, step, length, shared = rounded(
            p, tl.load(by + column, mask=inside, other=0.0), tl.load(noise + column, mask=inside, other=0.0),
            tl.load(other + column, mask=inside, other=0.0), inside, True,
        )  # fmt: skip
        tl.store(numbers_8 + here, found.to(tl.int8), mask=inside)
        tl.store(steps_8 + row, step)
        tl.store(lengths_8 + row, length)
        tl.store(shared_8 + row, shared)
    if HALVES:
        p = tl.where(inside, p, 0.0)
        factor, scale = powers(tl.max(tl.abs(p), axis=0))
        p *= factor
        tl.store(numbers + here, p.to(tl.float16), mask=inside)
        tl.store(scales + row, scale)
        tl.store(lengths + row, tl.sqrt(tl.sum(p * p, axis=0)) * scale)
