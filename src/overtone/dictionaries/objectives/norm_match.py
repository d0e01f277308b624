"""The code should be as long as the state."""

from dataclasses import dataclass

from torch import Tensor

from overtone.dictionaries.objectives.base import Objective, StepView


@dataclass(frozen=True)
class NormMatch(Objective):
    """weight x mean over rows of (||z|| - ||x - c||)^2 / E||x - mean||^2, where z_i counts as z_i ||d_i|| and c is the
    centre that is subtracted before encoding. Source: Lee et al. 2025, arXiv 2503.24277 (L_AFA)."""

    weight: float
    sliceable = True
    separable = True

    def __call__(self, step: StepView) -> Tensor:
        """The term, 0 or more."""
        parts = step.values * step.at(step.norms)
        lengths = (step.summed(parts.square()) + 1e-12).sqrt()  # the root of 0 has no gradient
        gap = (lengths - step.centred.norm(dim=1)).square().mean()
        return self.weight * gap / step.dictionary.spread
