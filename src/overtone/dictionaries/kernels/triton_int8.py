"""Rows as int8 numbers, and their products on the tensor cores of GPUs that multiply these twice as fast as 16 bits.

What they tell of a product is uncertain, so that they only nominate. With steps s and s' and factors f of coordinates
(`rounded.balance`; 1 where these are alike), rows are T = x f / s, weights T' = w / (f s'), and of both
    R = floor(T + a + 1/2)          a: noise, uniform in [-1/2, 1/2), one number for each coordinate
Whatever the data, R - a - T is then uniform in [-1/2, 1/2), independently from coordinate to coordinate (Schuchman
1964), and <x,w> is s s' <R - a, R' - a'> up to an error with (Hoeffding 1963)
    P(error > h sqrt(V)) <= exp(-h^2 / 2),        V = s^2 s'^2 (|R' - a'|^2 + |T|^2) / 12.
One of the k best is left out only if another score, which is in truth no larger, seems larger by the bounds of both:
if their errors differ by h (sqrt(V) + sqrt(V')). That has a probability of exp(-h^2 / 2) at most, and exp(-h^2) where
they are independent and of one size, as errors of different weights nearly are: 2e-16 for h = 6.
Noise is drawn once for each width. As what is chosen is what float32 chooses, weights do not come to depend on it.

Import this module only where Triton is installed.
"""

# pyright: reportIndexIssue=false, reportCallIssue=false

import logging
from dataclasses import dataclass
from functools import cache
from typing import no_type_check

import torch
import triton
import triton.language as tl
from torch import Tensor

from overtone.dictionaries.kernels.kept import keep, kept
from overtone.dictionaries.kernels.launch import on
from overtone.dictionaries.kernels.rounded import balance

log = logging.getLogger(__name__)
ROWS, LATENTS, SIDE, GROUP = 128, 128, 128, 8  # of a product that a program takes; chosen on an H200
WARPS, STAGES = 4, 3  # that it has
APART = 8  # latents of a program that are so far apart form a group
EVEN = 16  # what widths are multiples of, and latents
SURE = 6.0  # deviations of errors that places are chosen within
SHARE = 1.01 * SURE / 12**0.5
GRAIN = 1.01 * 2.0**-8  # largest relative error of what is rounded to bf16


@dataclass(frozen=True, eq=False)
class Frame:
    """What rows of one width are rounded with. by: (2, width) factors of states and of weights; noise: (2, width)."""

    by: Tensor
    noise: Tensor

    @classmethod
    def of(cls, states: Tensor, weight: Tensor) -> "Frame":
        """For products of such states with such weights."""
        width, device = weight.shape[1], weight.device
        powers = balance(states, weight, None)
        powers = torch.ones(width, device=device) if powers is None else powers
        return cls(torch.stack([powers, 1 / powers]), _noise(width).to(device))


@cache
def _noise(width: int) -> Tensor:
    return torch.rand(2, width, generator=torch.Generator().manual_seed(width)) - 0.5


@dataclass(frozen=True, eq=False)
class Bytes:
    """numbers: (rows, width) int8, R; steps: (rows,); lengths: (rows,) of s T, or s' (R' - a'); shared: (rows,)
    what products of the numbers have too much for the noise of the others."""

    numbers: Tensor
    steps: Tensor
    lengths: Tensor
    shared: Tensor


@dataclass(frozen=True, eq=False)
class Weights:
    """Weights in int8, with what states that meet them are to be rounded with."""

    bytes: Bytes
    frame: Frame


@cache
def is_fast(device: torch.device) -> bool:
    """Whether a device multiplies int8 numbers fast, and Triton builds that."""
    if device.type != "cuda" or torch.cuda.get_device_capability(device) < (9, 0):
        return False
    try:
        ones = torch.ones(EVEN, EVEN, device=device)
        frame = Frame.of(ones, ones)
        found = scores(bytes_of(ones, frame, 0), bytes_of(ones, frame, 1), ones[0], False)
        return bool(found.u.isfinite().all())
    except Exception as error:
        log.warning("16-bit numbers nominate, which is slower: int8 products cannot be built here: %s", error)
        return False


def weights_of(weight: Tensor, states: Tensor) -> Weights:
    """Of (latents, width) float32 weights, for products with such states."""
    known = kept(Weights, weight)
    if known is not None:
        return known.found
    frame = Frame.of(states, weight)
    found = Weights(bytes_of(weight, frame, 1), frame)
    keep(weight, found)
    return found


def bytes_of(rows: Tensor, frame: Frame, side: int) -> Bytes:
    """Of (rows, width) float32 numbers; side: 0 of states, 1 of weights."""
    n, width = rows.shape
    found = Bytes(torch.empty_like(rows, dtype=torch.int8), *(rows.new_empty(n) for _ in range(3)))
    if n:
        with on(rows.device):
            _bytes_kernel[(n,)](
                found.numbers, found.steps, found.lengths, found.shared, rows, frame.by[side], frame.noise[side],
                frame.noise[1 - side], width, OF_WEIGHTS=side == 1, SIDE=triton.next_power_of_2(width),
                num_warps=max(1, min(16, width // 256)),
            )  # fmt: skip
    return found


@dataclass(frozen=True, eq=False)
class Scores:
    """u: (rows, latents) bf16 products; upper, lower: (rows, groups) bf16 what no score of a group is above, and what
    one is not below."""

    u: Tensor
    upper: Tensor
    lower: Tensor


def scores(states: Bytes, weights: Bytes, added: Tensor, two_sided: bool, rows: slice = slice(None)) -> Scores:
    """Products of some rows with weights, and bounds of scores, which are (latents,) numbers more, or that without its
    sign. Latent l is of group l // LATENTS x APART + l % APART."""
    from triton.tools.tensor_descriptor import TensorDescriptor

    numbers, device = states.numbers[rows], states.numbers.device
    (n, width), n_latents = numbers.shape, len(weights.numbers)
    across = triton.cdiv(n_latents, LATENTS)
    shapes = (n, n_latents), (n, across * APART), (n, across * APART)
    found = Scores(*(torch.empty(shape, dtype=torch.bfloat16, device=device) for shape in shapes))
    if n:
        left, right = (
            TensorDescriptor(of, [len(of), width], [width, 1], [size, SIDE])
            for of, size in ((numbers, ROWS), (weights.numbers, LATENTS))
        )
        with on(device):
            _product_kernel[(triton.cdiv(n, ROWS) * across,)](
                found.u, found.upper, found.lower, left, right, states.steps[rows], weights.steps,
                states.lengths[rows], weights.lengths, states.shared[rows], weights.shared, added, n, n_latents, width,
                SHARE, TWO_SIDED=two_sided, ROWS=ROWS, LATENTS=LATENTS, APART=APART, SIDE=SIDE, GROUP=GROUP,
                num_warps=WARPS, num_stages=STAGES,
            )  # fmt: skip
    return found


@triton.jit
@no_type_check
def rounded(rows, by, noise, other, inside, OF_WEIGHTS: tl.constexpr):
    """Of numbers of one row: R, its step, its length, and what its products share. `inside` is where they are."""
    rows = tl.where(inside, rows * by, 0.0)
    step = tl.maximum(tl.max(tl.abs(rows), axis=0) / 126.5, 1e-30)  # numbers and noise are 127 at most
    step += 0 * tl.sum(rows, axis=0)  # no number where one of the row is none
    rows = rows / step
    numbers = tl.floor(rows + (noise + 0.5))
    numbers = tl.where(inside & (numbers == numbers), numbers, 0.0)
    if OF_WEIGHTS:
        rows = numbers - noise
        shared = tl.sum(other * rows, axis=0)
    else:
        shared = tl.sum(other * numbers, axis=0)
    return numbers, step, tl.sqrt(tl.sum(rows * rows, axis=0)) * step, shared


@triton.jit
@no_type_check
def _bytes_kernel(
    numbers, steps, lengths, shared, rows, by, noise, other, width, OF_WEIGHTS: tl.constexpr, SIDE: tl.constexpr
):
    """One program: one row, all of it."""
    row, column = tl.program_id(0), tl.arange(0, SIDE)
    inside, here = column < width, row.to(tl.int64) * width + column
    found, step, length, of_noise = rounded(
        tl.load(rows + here, mask=inside, other=0.0), tl.load(by + column, mask=inside, other=0.0),
        tl.load(noise + column, mask=inside, other=0.0), tl.load(other + column, mask=inside, other=0.0), inside,
        OF_WEIGHTS,
    )  # fmt: skip
    tl.store(numbers + here, found.to(tl.int8), mask=inside)
    tl.store(steps + row, step)
    tl.store(lengths + row, length)
    tl.store(shared + row, of_noise)


@triton.jit
@no_type_check
def _product_kernel(
    u, upper, lower, left, right, steps, steps_w, lengths, lengths_w, shared, shared_w, added, n_rows, n_latents,
    width, share, TWO_SIDED: tl.constexpr, ROWS: tl.constexpr, LATENTS: tl.constexpr, APART: tl.constexpr,
    SIDE: tl.constexpr, GROUP: tl.constexpr,
):  # fmt: skip
    """One program: ROWS x LATENTS products. Programs that run together take GROUP blocks of rows. A group's latents are
    APART since one thread has them then."""
    blocks, across = tl.cdiv(n_rows, ROWS), tl.cdiv(n_latents, LATENTS)
    first = tl.program_id(0) // (GROUP * across) * GROUP
    height, within = tl.minimum(blocks - first, GROUP), tl.program_id(0) % (GROUP * across)
    top, tile = (first + within % height) * ROWS, within // height
    sums = tl.zeros((ROWS, LATENTS), tl.int32)
    for k in range(0, width, SIDE):
        sums = tl.dot(left.load([top, k]), right.load([tile * LATENTS, k]).T, sums, out_dtype=tl.int32)
    row, latent = top + tl.arange(0, ROWS), tile * LATENTS + tl.arange(0, LATENTS)
    is_row, is_latent = row < n_rows, latent < n_latents
    step, step_w = tl.load(steps + row, mask=is_row, other=0.0), tl.load(steps_w + latent, mask=is_latent, other=0.0)
    score = sums.to(tl.float32) - tl.load(shared + row, mask=is_row, other=0.0)[:, None]
    score -= tl.load(shared_w + latent, mask=is_latent, other=0.0)[None, :]
    score *= step[:, None]
    score *= step_w[None, :]
    here = row.to(tl.int64)[:, None] * n_latents + latent[None, :]
    tl.store(u + here, score.to(tl.bfloat16), mask=is_row[:, None] & is_latent[None, :])
    score += tl.load(added + latent, mask=is_latent, other=0.0)[None, :]
    if TWO_SIDED:
        score = tl.abs(score)
    score = tl.where(is_latent[None, :] & (score == score), score, float("-inf"))
    best = tl.max(tl.reshape(score, (ROWS, LATENTS // APART, APART)), axis=1)
    length, length_w = (
        tl.load(lengths + row, mask=is_row, other=0.0),
        tl.load(lengths_w + latent, mask=is_latent, other=0.0),
    )
    length_w = tl.max(tl.reshape(length_w, (LATENTS // APART, APART)), axis=0)
    step_w = tl.max(tl.reshape(step_w, (LATENTS // APART, APART)), axis=0)
    wrong = (share * step)[:, None] * length_w[None, :] + (share * length)[:, None] * step_w[None, :]
    above, below = best + wrong, best - wrong
    there = row.to(tl.int64)[:, None] * (across * APART) + (tile * APART + tl.arange(0, APART))[None, :]
    tl.store(upper + there, tl.where(above > 0, above * 1.008, above * 0.992).to(tl.bfloat16), mask=is_row[:, None])
    tl.store(lower + there, tl.where(below > 0, below * 0.992, below * 1.008).to(tl.bfloat16), mask=is_row[:, None])
