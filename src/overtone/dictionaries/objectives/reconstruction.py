"""How much of the states' variance the reconstruction misses."""

from dataclasses import dataclass

from torch import Tensor
from torch.nn.functional import mse_loss

from overtone.dictionaries.objectives.base import Objective, StepView


@dataclass(frozen=True)
class Reconstruction(Objective):
    """mean over rows of ||x - x_hat||^2, divided by E||x - mean||^2 (a constant fitted before training)."""

    sliceable = True
    separable = True

    def __call__(self, step: StepView) -> Tensor:
        """The unexplained share, 0 or more."""
        return mse_loss(step.x_hat, step.x, reduction="sum") / (len(step.x) * step.dictionary.spread)
