"""A price on codes that are far from a standard normal distribution."""

from dataclasses import dataclass

import torch
from torch import Tensor

from overtone.dictionaries.objectives.base import Objective, StepView
from overtone.dictionaries.sampling import mean


@dataclass(frozen=True)
class Prior(Objective):
    """beta x mean over rows of the sum over latents of KL(N(mu, sigma^2) || N(0, 1)) / spread; rises linearly from 0
    over the first `ramp` of the tokens. Without a log-variance it is the part that depends on mu, mu^2 / 2. selected:
    only latents that are active count; otherwise all do, which most of them answer by dying. Source: vSAE, arXiv
    2509.22994."""

    beta: float
    rectified: bool = True
    selected: bool = False
    ramp: float = 0.1
    needs_all = True
    sliceable = True
    separable = True

    def __call__(self, step: StepView) -> Tensor:
        """The penalty, 0 or more."""
        price = divergence(mean(step.heads, self.rectified), step.heads.get("logvar"))
        if self.selected:
            price = price * (step.values.detach() != 0)
        now = self.beta * (min(1.0, step.progress / self.ramp) if self.ramp else 1.0)
        return now * step.total(price) / len(step.x) / step.dictionary.spread


def divergence(mu: Tensor, logvar: Tensor | None) -> Tensor:
    """KL(N(mu, e^logvar) || N(0, 1)) = (mu^2 + e^logvar - 1 - logvar) / 2, elementwise, in nats; mu^2 / 2 without a
    log-variance."""
    if logvar is None:
        return mu.square() / 2
    return (mu.square() + torch.exp(logvar) - 1 - logvar) / 2
