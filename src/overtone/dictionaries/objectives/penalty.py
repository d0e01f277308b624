"""A price on active latents."""

from dataclasses import dataclass

from torch import Tensor

from overtone.dictionaries.objectives.base import Objective, StepView


@dataclass(frozen=True)
class L1(Objective):
    """weight x mean over rows of sum_i |z_i| ||d_i||, divided by the typical length of a centred state; rises linearly
    from 0 over the first `ramp` of the tokens. The product with the row norm leaves no way to cheat by rescaling."""

    weight: float
    ramp: float = 0.05

    def __call__(self, step: StepView) -> Tensor:
        """The penalty, 0 or more."""
        price = (step.values.abs() * step.at(step.dictionary.decoder.norms())).sum() / len(step.x)
        now = self.weight * (min(1.0, step.progress / self.ramp) if self.ramp else 1.0)
        return now * price / step.dictionary.spread.sqrt()
