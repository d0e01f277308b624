"""A hierarchy of features by factorising features: each level explains the one below it by fewer features.

Source: SNMF, arXiv 2506.10920: Z_0 (the dictionary's features) ~ W_1 Z_1, Z_1 ~ W_2 Z_2, ... with W >= 0; then all
factors are tuned together by Adam on the squared error of the rows.
Deviations: 1. each level l explains the rows by itself, X ~ G W_1 ... W_l Z_l, and the mean of their errors is tuned;
the authors tune the error of the last level, which limits every level's features to the span of the last one's. 2. Each
level's features are solved for on the rows before the next level is made of them, on the neurons that they kept:
codes are positive all over and their features of both signs, so small errors of features add up to errors of rows many
times the rows' size. 3. Adam sees each factor in units of its root mean square, so that the rows' unit does not matter.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from overtone.core.errors import CapabilityError
from overtone.core.settings import require
from overtone.dictionaries.classic.nonnegative import NonNegative
from overtone.dictionaries.classic.semi_nmf import semi_nmf, starts, winner_take_all

RIDGE = 1e-9  # share of the mean square of codes
BLOCK = 256  # neurons at a time


@dataclass(frozen=True, eq=False)
class FeatureTree:
    """features[l]: (latents of level l, width), from the finest level 0 up; weights[l]: (latents of level l, latents of
    level l + 1) >= 0, how much of each parent is in each child; features[0] are the dictionary's own. missed: mean over
    levels of the share of the rows' squares that the level misses: with features as factorised, as solved for on the
    rows, and as tuned."""

    features: tuple[Tensor, ...]
    weights: tuple[Tensor, ...]
    missed: tuple[float, float, float]

    def parents(self, level: int) -> Tensor:
        """(latents of the level,) the feature of the next level that each holds most of, by length of its share."""
        return (self.weights[level] * self.features[level + 1].norm(dim=1)).argmax(1)


def feature_tree(
    x: Float[Tensor, "rows width"], dictionary: NonNegative, sizes: Sequence[int], generator: torch.Generator, *,
    winners: float = 0.05, iterations: int = 1000, restarts: int = 5, tuning: int = 500, lr: float = 1e-2,
) -> FeatureTree:  # fmt: skip
    """The hierarchy above a dictionary, with sizes[0] features on level 1, sizes[1] on level 2, and so on.

    x: the rows that all levels are tuned on; winners: share of neurons that a feature above level 0 keeps; restarts:
    fits per level, of which the best is kept; tuning: updates of Adam; lr: their size, as a share of a factor's root
    mean square (the authors' 1e-3 is for factors whose columns over the rows have length 1, with entries of a few
    hundredths). Rows in another unit give the same tree. Raises SettingError unless sizes fall,
    CapabilityError for a dictionary with other codes than those of SNMF and NMF.
    """
    if not isinstance(dictionary, NonNegative):
        raise CapabilityError(f"{dictionary.kind} is no factorisation with non-negative codes. Fit an snmf or nmf.")
    below = [dictionary.n_latents, *sizes]
    require(
        bool(sizes) and all(a > b >= 1 for a, b in zip(below, sizes, strict=False)),
        f"sizes={list(sizes)} above {dictionary.n_latents} features: each level must be smaller than the one below.",
    )
    rows = x.double() - dictionary.offset.double()
    codes = own = dictionary.encode(x).dense().double()
    found, weights, raw = [dictionary.weight.double()], list[Tensor](), list[Tensor]()
    for size in sizes:
        begin = starts(found[-1], size, generator)["random"]
        fits = [semi_nmf(found[-1], begin(), winners=winners, iterations=iterations) for _ in range(restarts)]
        best = min(fits, key=lambda fit: fit.loss)
        weights.append(best.codes)
        raw.append(best.features)
        codes = codes @ weights[-1]
        found.append(least_squares_on(best.features != 0, codes, rows))
    untuned = float(_missed(rows, own, weights, raw))
    weights, above, missed = _tuned(rows, own, weights, found[1:], winners, tuning, lr)
    levels = (dictionary.weight, *(f.float() for f in above))
    return FeatureTree(levels, tuple(w.float() for w in weights), (untuned, *missed))


def least_squares_on(
    support: Bool[Tensor, "latents width"], codes: Float[Tensor, "rows latents"], x: Float[Tensor, "rows width"]
) -> Float[Tensor, "latents width"]:
    """The Z of least ||X - G Z||^2 that is 0 outside of a support: a small problem for each neuron."""
    gram, answers = codes.T @ codes, (codes.T @ x).T
    ridge = RIDGE * gram.diagonal().mean().clamp_min(1e-30)
    found = []
    for on, answer in zip(support.T.split(BLOCK), answers.split(BLOCK), strict=True):
        inside = on.to(gram.dtype)
        small = gram * inside[:, :, None] * inside[:, None, :] + torch.diag_embed(ridge + (1 - inside) * ridge)
        found.append(torch.linalg.solve(small, answer * inside) * inside)
    return torch.cat(found).T


def _tuned(
    x: Tensor, codes: Tensor, weights: list[Tensor], features: list[Tensor], winners: float, updates: int, lr: float
) -> tuple[list[Tensor], list[Tensor], tuple[float, float]]:
    """Weights and features after joint tuning (the best of all updates), and the mean share that the levels miss before
    and after."""
    n = len(weights)
    start = [codes, *weights, *features]
    units = [factor.square().mean().sqrt().clamp_min(1e-30) for factor in start]
    factors = [(factor / unit).requires_grad_() for factor, unit in zip(start, units, strict=True)]
    adam, first, least, best = torch.optim.Adam(factors, lr=lr), math.inf, math.inf, start
    for update in range(updates + 1):
        now = [factor * unit for factor, unit in zip(factors, units, strict=True)]
        loss = _missed(x, now[0], now[1 : n + 1], now[n + 1 :])
        missed = loss.item()
        first = missed if update == 0 else first
        if missed < least:
            best, least = [factor.detach() for factor in now], missed
        adam.zero_grad()
        loss.backward()
        adam.step()
        with torch.no_grad():
            for factor in factors[: n + 1]:
                factor.clamp_(min=0)
            for factor in factors[n + 1 :]:
                factor.copy_(winner_take_all(factor, winners))
    return best[1 : n + 1], best[n + 1 :], (first, least)


def _missed(x: Tensor, codes: Tensor, weights: list[Tensor], features: list[Tensor]) -> Tensor:
    """() mean over levels of the share of the rows' squares that is missed."""
    total = x.new_zeros(())
    for weight, feature in zip(weights, features, strict=True):
        codes = codes @ weight
        total = total + (x - codes @ feature).square().sum()
    return total / (len(weights) * x.square().sum().clamp_min(1e-30))
