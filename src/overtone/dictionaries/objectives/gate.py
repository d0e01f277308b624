"""The gate alone must be able to reconstruct, or nothing would teach it which latents to open."""

from dataclasses import dataclass

from torch import Tensor

from overtone.dictionaries.objectives.base import Objective, StepView


@dataclass(frozen=True)
class GateReconstruction(Objective):
    """mean over rows of ||x - x_hat_gate||^2 / E||x - mean||^2, x_hat_gate decoded from the positive part of the gate's
    pre-activations by a decoder (rows and constant) that gets no gradient. Source: arXiv 2404.16014."""

    sliceable = True
    separable = True

    def __call__(self, step: StepView) -> Tensor:
        """The unexplained share, 0 or more."""
        model = step.dictionary
        x_hat = step.decoded(step.heads["u"].relu(), frozen=True) + model.decoder.centre().detach()
        return (x_hat - step.x).square().sum() / (len(step.x) * model.spread)
