"""Every prefix of the latents must reconstruct by itself."""

from dataclasses import dataclass

from torch import Tensor

from overtone.dictionaries.objectives.base import Objective, StepView
from overtone.dictionaries.objectives.reconstruction import share_of, unexplained


@dataclass(frozen=True)
class NestedReconstruction(Objective):
    """Mean over prefixes m of the unexplained share (as in Reconstruction) that the first m latents leave.

    prefixes: ascending numbers of latents; the last must be all of them, and its term is that of the full
    reconstruction. None: what a maintainer publishes as `prefixes.sizes`. Source: arXiv 2503.17547.
    """

    prefixes: tuple[int, ...] | None
    sliceable = True
    separable = True

    def __call__(self, step: StepView) -> Tensor:
        """The mean share, 0 or more."""
        sizes = self.prefixes or tuple(step.state["prefixes.sizes"].tolist())
        total, x_hat, done = share_of(step.squared_error, step), step.dictionary.decoder.centre(), 0
        for size in sizes[:-1]:
            inside = (step.latents >= done) & (step.latents < size)
            x_hat, done = x_hat + step.decoded(step.values, inside), size
            total = total + unexplained(x_hat.expand_as(step.x), step)
        return total / len(sizes)
