"""Prices on active latents: by their size, by their number, or in between."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from overtone.dictionaries.jumps import is_above
from overtone.dictionaries.objectives.base import Objective, StepView

FLOOR = 1e-3  # amounts below it are priced linearly: the slope of a power below 1 has no bound


@dataclass(frozen=True)
class Price(Objective):
    """Base of the prices: weight x mean over rows of a sum over latents, rising linearly from 0 over the first `ramp`
    of the tokens, times `price.factor` where a maintainer steers it (maintainers/sparsity_target)."""

    sliceable = True
    separable = True

    weight: float
    ramp: float = 0.05

    def __call__(self, step: StepView) -> Tensor:
        """The price, 0 or more."""
        return self.of_mean(self.mean(step), step.progress, step.state)

    def mean(self, step: StepView) -> Tensor:
        """The mean over rows before weighting."""
        return self.total(step) / len(step.x)

    def of_mean(self, mean: Tensor, progress: float, state: Mapping[str, Tensor]) -> Tensor:
        """The mean times what it costs now."""
        price = self.weight * (min(1.0, progress / self.ramp) if self.ramp else 1.0) * mean
        return price * state["price.factor"] if "price.factor" in state else price

    def total(self, step: StepView) -> Tensor:
        """The sum over rows and latents before weighting."""
        raise NotImplementedError


@dataclass(frozen=True)
class L1(Price):
    """weight x mean over rows of sum_i |z_i| ||d_i||, divided by the typical length of a centred state. The product
    with the row norm leaves no way to cheat by rescaling."""

    def total(self, step: StepView) -> Tensor:
        """Sum of the amounts."""
        return total_amount(step, magnitudes(step))


@dataclass(frozen=True)
class GateL1(Price):
    """As L1, on the positive part of the gate's pre-activations instead of the values. Source: arXiv 2404.16014."""

    def total(self, step: StepView) -> Tensor:
        """Sum of the gates' amounts."""
        return total_amount(step, step.heads["u"].relu())


@dataclass(frozen=True)
class Power(Price):
    """weight x factor x mean over rows of sum_i a_i^p, a_i as in L1; p and factor are what an annealing maintainer
    publishes. Below a small amount the power goes on along its tangent. Source: arXiv 2408.00113."""

    def total(self, step: StepView) -> Tensor:
        """Sum of the powers, times their factor."""
        p, factor = float(step.state["annealing.p"]), step.state["annealing.factor"]
        if p == 1:
            return total_amount(step, magnitudes(step)) * factor
        return step.total(powers(amounts(step, magnitudes(step)), p)) * factor


@dataclass(frozen=True)
class Tanh(Price):
    """weight x mean over rows of sum_i tanh(steepness a_i), a_i as in L1 times sqrt(width): about the number of active
    latents, but with a slope (for codes without sign). Source: Anthropic Circuits Updates, January 2025."""

    steepness: float = 4.0

    def total(self, step: StepView) -> Tensor:
        """Sum over the active latents."""
        return step.total((self.steepness * step.x.shape[1] ** 0.5 * amounts(step, step.values)).tanh())


@dataclass(frozen=True)
class L0(Price):
    """weight x the number of active latents per row, with the pseudo-gradient of a learned threshold. target: instead
    weight x (number / target - 1)^2. Source: arXiv 2407.14435; the target is common in implementations."""

    target: float | None = None

    @property
    def bent(self) -> bool:
        """With a target."""
        return self.target is not None

    def total(self, step: StepView) -> Tensor:
        """The number of active places."""
        return step.total(is_above(step.heads["u"], step.heads["theta"], step.heads["window"]))

    def of_mean(self, mean: Tensor, progress: float, state: Mapping[str, Tensor]) -> Tensor:
        """The price of the mean, or of how far it is from the target."""
        miss = mean if self.target is None else (mean / self.target - 1).square()
        return super().of_mean(miss, progress, state)


@dataclass(frozen=True)
class Revive(Objective):
    """weight x mean over rows of sum_i max(theta_i - u_i, 0) ||d_i|| over dead latents i, divided by the typical length
    of a centred state: it pulls them up until they fire. Source: Anthropic Circuits Updates, January 2025."""

    weight: float
    needs_values = False
    sliceable = True

    def __call__(self, step: StepView) -> Tensor:
        """The term, 0 or more."""
        if not len(step.dead):
            return step.missed.new_zeros(())
        model, dead = step.dictionary, step.dictionary.slice.inside(step.dead)
        weight, bias = model.encoder.affine(model.decoder)
        centre = step.centre
        states = step.centred + (centre.detach() - centre if isinstance(centre, Tensor) else 0.0)
        u = torch.nn.functional.linear(states, weight[dead], bias[dead])
        short = (model.selection.theta[dead] - u).relu() * step.norms[dead]
        return self.weight * step.everyones(short.sum()) / len(step.x) / model.spread.sqrt()


def amounts(step: StepView, values: Tensor) -> Tensor:
    """Value x row norm / typical length of a centred state, in the layout of `values`."""
    return values * step.at(step.norms / step.dictionary.spread.sqrt())


def magnitudes(step: StepView) -> Tensor:
    """|z| in the layout of the values."""
    return step.values.abs() if step.dictionary.value.signed else step.values


def total_amount(step: StepView, values: Tensor) -> Tensor:
    """The sum of `amounts` over rows and latents; after a dense pass without a matrix of them."""
    if not step.dense:
        return step.total(amounts(step, values))
    return step.total(values.sum(0) * step.norms) / step.dictionary.spread.sqrt()


def powers(amounts: Tensor, p: float) -> Tensor:
    """a^p of amounts a >= 0, continued below FLOOR by the tangent, and 0 with slope 0 at a = 0, where the latent is not
    active."""
    return amounts if p == 1 else _Powers.apply(amounts, p)


class _Powers(torch.autograd.Function):
    """With m = max(a, FLOOR): m^p + p FLOOR^(p - 1) min(a - FLOOR, 0), whose slope is p m^p / m everywhere."""

    @staticmethod
    def forward(ctx: Any, amounts: Tensor, p: float) -> Tensor:
        floored, active = amounts.clamp_min(FLOOR), amounts.sign()
        powers = floored**p
        if ctx.needs_input_grad[0]:
            ctx.save_for_backward((powers / floored).mul_(p).mul_(active))
        below = (amounts - FLOOR).clamp_(max=0)
        return powers.add_(below, alpha=p * FLOOR ** (p - 1)).mul_(active)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        return ctx.saved_tensors[0] * grad, None
