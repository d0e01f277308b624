"""Pursuits: greedy sparse codes of rows on given unit atoms, one more atom at each step.

In all of them r is the residual, at first the row, and c = r D^T. The next atom is that of the largest |c| (signed), or
of the largest c if that is positive (non-negative codes). They differ in what the coefficients become:
    matching    the chosen one grows by c, nothing else changes; atoms may come again, and their coefficients add up
    orthogonal  all are solved for again by least squares (non-negative ones if codes are); no atom comes twice
    gradient    all make one exact line search along the gradient of ||r||^2 (then the negative part is cut off)
Sources: Mallat and Zhang 1993; Pati et al. 1993; Blumensath and Davies 2008.
"""

from collections.abc import Callable

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn.functional import embedding_bag

from overtone.dictionaries.codes import SparseCodes
from overtone.dictionaries.solvers.nonnegative import nonnegative_least_squares

LARGEST_GRAM = 4096  # atoms: 64 MiB in float32
NOISE = 1e-6  # correlations below this share of the row's norm are rounding errors
RIDGE = 1e-9  # for supports whose atoms depend on each other

Pursuit = Callable[..., SparseCodes]


def matching(
    x: Float[Tensor, "rows width"], atoms: Float[Tensor, "latents width"], steps: int, *, signed: bool,
    tolerance: float = 0.0,
) -> SparseCodes:  # fmt: skip
    """Matching pursuit. At most `steps` active latents per row.

    A row rests once ||r|| <= tolerance ||x||. Correlations follow by the atoms' Gram matrix where that is cheaper than
    a product with the residual at each step.
    """
    by_gram = len(atoms) <= min(LARGEST_GRAM, steps * len(x))
    gram = atoms @ atoms.T if by_gram else None
    limits, residual, c = _Limits(x, tolerance), x, x @ atoms.T
    energy = x.square().sum(1)
    picks, values = [], []
    for _ in range(steps):
        pick, size = _best(c, signed)
        value = torch.where(limits.open(size, energy), c.gather(1, pick[:, None]).squeeze(1), 0.0)
        if gram is not None:
            c = torch.addcmul(c, value[:, None], gram[pick], value=-1)
        else:
            residual = torch.addcmul(residual, value[:, None], atoms[pick], value=-1)
            c = residual @ atoms.T
        energy = energy - value.square()
        picks.append(pick)
        values.append(value)
    return _added_up(torch.stack(picks, 1), torch.stack(values, 1), len(atoms))


def orthogonal(
    x: Float[Tensor, "rows width"], atoms: Float[Tensor, "latents width"], steps: int, *, signed: bool,
    tolerance: float = 0.0,
) -> SparseCodes:  # fmt: skip
    """Orthogonal matching pursuit. At most `steps` active latents per row; see `matching` for the arguments."""
    limits, residual = _Limits(x, tolerance), x
    picks, used = x.new_zeros(len(x), 0, dtype=torch.int64), x.new_zeros(len(x), 0, dtype=torch.bool)
    values = x.new_zeros(len(x), 0)
    for _ in range(steps):
        c = (residual @ atoms.T).scatter_(1, picks, 0.0)
        pick, size = _best(c, signed)
        picks = torch.cat([picks, pick[:, None]], 1)
        used = torch.cat([used, limits.open(size, residual.square().sum(1))[:, None]], 1)
        values = refitted(x, atoms, picks, used, signed=signed)
        residual = x - _decoded(values, picks, atoms)
    return SparseCodes(values, picks, len(atoms))


def gradient(
    x: Float[Tensor, "rows width"], atoms: Float[Tensor, "latents width"], steps: int, *, signed: bool,
    tolerance: float = 0.0,
) -> SparseCodes:  # fmt: skip
    """Gradient pursuit. At most `steps` active latents per row; see `matching` for the arguments."""
    limits, residual = _Limits(x, tolerance), x
    picks, used = x.new_zeros(len(x), 0, dtype=torch.int64), x.new_zeros(len(x), 0, dtype=torch.bool)
    values = x.new_zeros(len(x), 0)
    for _ in range(steps):
        c = residual @ atoms.T
        pick, size = _best(c, signed)
        new = limits.open(size, residual.square().sum(1)) & ~((picks == pick[:, None]) & used).any(1)
        picks, used = torch.cat([picks, pick[:, None]], 1), torch.cat([used, new[:, None]], 1)
        slope = c.gather(1, picks) * used  # the gradient, on the support
        along = _decoded(slope, picks, atoms).square().sum(1)
        length = torch.where(along > 0, slope.square().sum(1) / along.clamp_min(1e-30), 0.0)  # g D may vanish
        values = torch.cat([values, values.new_zeros(len(x), 1)], 1) + length[:, None] * slope
        values = values if signed else values.clamp_min(0)
        residual = x - _decoded(values, picks, atoms)
    return SparseCodes(values, picks, len(atoms))


def refitted(
    x: Float[Tensor, "rows width"], atoms: Float[Tensor, "latents width"], picks: Int[Tensor, "rows active"],
    used: Bool[Tensor, "rows active"], *, signed: bool,
) -> Float[Tensor, "rows active"]:  # fmt: skip
    """Least squares coefficients of the used picks of each row (non-negative ones unless signed), 0 elsewhere."""
    chosen = atoms.double()[picks] * used[..., None]
    gram, target = chosen @ chosen.mT, (chosen @ x.double()[..., None]).squeeze(2)
    if not signed:
        return nonnegative_least_squares(gram, target).to(x.dtype)
    ridge = torch.diag_embed(RIDGE + (~used).double())
    solved = torch.cholesky_solve(target[..., None], torch.linalg.cholesky(gram + ridge)).squeeze(2)
    return solved.to(x.dtype)


METHODS: dict[str, Pursuit] = {"matching": matching, "orthogonal": orthogonal, "gradient": gradient}


class _Limits:
    """When a row has had enough."""

    def __init__(self, x: Tensor, tolerance: float) -> None:
        self.energy = x.square().sum(1)
        self.floor = NOISE * self.energy.sqrt()
        self.tolerance = tolerance

    def open(self, size: Tensor, energy: Tensor) -> Tensor:
        """(rows,) bool: the best correlation is more than noise, and the residual's energy still too large."""
        return (size > self.floor) & (energy > self.tolerance**2 * self.energy)


def _best(c: Tensor, signed: bool) -> tuple[Tensor, Tensor]:
    """The next atom of each row and how well it correlates, (rows,) each."""
    size, pick = (c.abs() if signed else c).max(1)
    return pick, size


def _decoded(values: Tensor, picks: Tensor, atoms: Tensor) -> Tensor:
    return embedding_bag(picks, atoms, per_sample_weights=values, mode="sum")


def _added_up(picks: Tensor, values: Tensor, n_latents: int) -> SparseCodes:
    """Codes in which an atom picked several times has one slot, that of its first pick."""
    same = picks[:, :, None] == picks[:, None, :]
    first = same.int().argmax(2)
    totals = torch.zeros_like(values).scatter_add_(1, first, values)
    return SparseCodes(totals, picks, n_latents)
