"""Non-negative least squares for many rows at once.

Where all rows share the atoms: splitting into a ridge regression and a projection (alternating direction method of
multipliers, Boyd et al. 2011, chapter 3, with over-relaxation), which costs one product per round and does not mind
that atoms resemble each other. Where each row has atoms of its own: coordinate descent (Franc, Hlavac, Navara 2005,
"Sequential coordinate-wise algorithm for the non-negative least squares problem").
"""

from collections.abc import Callable

import torch
from torch import Tensor

ROUNDS, SWEEPS = 500, 300
TOLERANCE = 1e-6  # of coordinate descent
APART = 1e-4  # of the splitting, whose error is then as small
STIFFNESS = 0.2  # of the splitting, in units of the mean squared length of an atom
RELAXED = 1.6
LOOK = 10  # rounds between two looks at which rows rest
KEPT = 0.75  # share of rows still moving below which the resting ones are put aside


def nonnegative_least_squares(
    gram: Tensor, target: Tensor, *, rounds: int | None = None, tolerance: float | None = None
) -> Tensor:
    """(rows, latents) codes z >= 0 that minimise ||x - z D||^2, given gram = D D^T and target = x D^T (rows, latents).

    gram: (latents, latents), shared by all rows, or (rows, latents, latents). A row rests once a round changes none of
    its codes by more than `tolerance` times its largest (None: 1e-4, or 1e-6 with grams of their own), or after
    `rounds` (None: 500, or 300 sweeps of coordinate descent); so its code does not depend on the company. Latents of
    norm 0 stay at 0. Where atoms depend on each other, as when there are more of them than the states are wide,
    several codes may be equally good; one of them comes.
    """
    if gram.ndim == 3:
        return _descended(gram, target, rounds or SWEEPS, tolerance or TOLERANCE)
    return _split(gram, target, rounds or ROUNDS, tolerance or APART)


def _split(gram: Tensor, target: Tensor, rounds: int, tolerance: float) -> Tensor:
    """s <- s + 1.6 (z - s+), where z solves the ridge regression towards |s|; its positive part s+ is the code."""
    rho = STIFFNESS * float(gram.diagonal().mean().clamp_min(1e-30))
    solve = _ridge(gram, rho)
    out, rows = torch.zeros_like(target), torch.arange(len(target), device=target.device)
    s = torch.zeros_like(target)
    for number in range(1, rounds + 1):
        code = s.clamp_min(0)
        apart = solve(torch.add(target, s.abs(), alpha=rho)).sub_(code)
        s.add_(apart, alpha=RELAXED)
        if number % LOOK and number < rounds:
            continue
        moving = apart.abs().amax(1) > tolerance * code.amax(1)
        out[rows] = s.clamp_min(0)
        rows, target, s = rows[moving], target[moving], s[moving]
        if not len(rows):
            break
    return out


def _ridge(gram: Tensor, rho: float) -> Callable[[Tensor], Tensor]:
    """b -> b (gram + rho)^-1, through the eigenvectors that count where that is less work."""
    size, axes = torch.linalg.eigh(gram)
    counts = size > 1e-12 * size[-1]
    size, axes = size[counts], axes[:, counts]
    if 2 * len(size) > len(gram):
        inverse = torch.linalg.inv(gram + rho * torch.eye(len(gram), dtype=gram.dtype, device=gram.device))
        return lambda b: b @ inverse
    shrink = axes * (size / (size + rho))
    return lambda b: torch.addmm(b, b @ shrink, axes.T, alpha=-1).div_(rho)


def _descended(gram: Tensor, target: Tensor, sweeps: int, tolerance: float) -> Tensor:
    out, rows = torch.zeros_like(target), torch.arange(len(target), device=target.device)
    z, left = torch.zeros_like(target), target.clone()  # left: what each latent still correlates with
    awake = torch.ones_like(target[:, :1])
    for _ in range(sweeps):
        moved = _sweep(z, left, gram, awake)
        awake = awake * (moved > tolerance * z.amax(1, keepdim=True))
        up = awake[:, 0] > 0
        if int(up.sum()) <= KEPT * len(rows):  # most rows need few sweeps: the others go on by themselves
            out[rows] = z
            rows, z, left, awake, gram = rows[up], z[up], left[up], awake[up], gram[up]
            if not len(rows):
                break
    out[rows] = z
    return out


def _sweep(z: Tensor, left: Tensor, gram: Tensor, awake: Tensor) -> Tensor:
    """One pass over the latents, in place; returns the largest step of each row, (rows, 1)."""
    size = gram.diagonal(dim1=-2, dim2=-1)
    inverse = torch.where(size > 0, 1 / size.clamp_min(1e-30), 0.0)
    moved = torch.zeros_like(awake)
    for j in range(z.shape[1]):
        step = ((z[:, j] + left[:, j] * inverse[..., j]).clamp_min_(0) - z[:, j]) * awake[:, 0]
        z[:, j] += step
        left.addcmul_(step[:, None], gram[..., j, :], value=-1)
        moved = torch.maximum(moved, step.abs()[:, None])
    return moved
