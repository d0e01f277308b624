"""Non-negative least squares for many rows at once, by coordinate descent.

Source: Franc, Hlavac, Navara 2005, "Sequential coordinate-wise algorithm for the non-negative least squares problem".
"""

import torch
from torch import Tensor

SWEEPS = 300
TOLERANCE = 1e-6
KEPT = 0.75  # share of rows still moving below which the resting ones are put aside


def nonnegative_least_squares(
    gram: Tensor, target: Tensor, *, sweeps: int = SWEEPS, tolerance: float = TOLERANCE
) -> Tensor:
    """(rows, latents) codes z >= 0 that minimise ||x - z D||^2, given gram = D D^T and target = x D^T (rows, latents).

    gram: (latents, latents), shared by all rows, or (rows, latents, latents). A row rests once a sweep over its latents
    changes none by more than `tolerance` times its largest, or after `sweeps`; so its code does not depend on the
    company. Latents of norm 0 stay at 0. Where atoms nearly depend on each other the sweeps converge slowly and may end
    before the optimum; the error is then near its least value, the coefficients need not be.
    """
    out, rows = torch.zeros_like(target), torch.arange(len(target), device=target.device)
    z, left = torch.zeros_like(target), target.clone()  # left: what each latent still correlates with
    awake = torch.ones_like(target[:, :1])
    for _ in range(sweeps):
        moved = _sweep(z, left, gram, awake)
        awake = awake * (moved > tolerance * z.amax(1, keepdim=True))
        up = awake[:, 0] > 0
        if int(up.sum()) <= KEPT * len(rows):  # most rows need few sweeps: the others go on by themselves
            out[rows] = z
            rows, z, left, awake = rows[up], z[up], left[up], awake[up]
            gram = gram[up] if gram.ndim == 3 else gram
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
