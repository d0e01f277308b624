"""Dead atoms are pulled towards what is left over."""

from dataclasses import dataclass

from torch import Tensor

from overtone.dictionaries.objectives.base import Objective, StepView


@dataclass(frozen=True)
class Revival(Objective):
    """-weight x mean over rows of the largest <r, d_i> of the dead latents i, over sqrt(E||x - mean||^2), where r = x -
    x_hat carries no gradient. Zero when no latent is dead.

    For encoders without pre-activations, where AuxK has nothing to rank. The MP-SAE library (arXiv 2506.03093)
    subtracts the mean over rows and dead latents instead, which pulls all of them towards the one mean residual; here
    each row pulls the dead atom that suits it best.
    """

    weight: float = 1.0
    needs_values = False

    def __call__(self, step: StepView) -> Tensor:
        """The term, usually 0 or less."""
        if not len(step.dead):
            return step.missed.new_zeros(())
        left = -step.missed.detach()
        best = (left @ step.dictionary.decoder.rows()[step.dead].T).amax(1)
        return -self.weight * best.mean() / step.dictionary.spread.sqrt()
