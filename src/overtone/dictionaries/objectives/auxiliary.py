"""Dead latents are asked to explain what the living ones miss."""

from dataclasses import dataclass

from torch import Tensor

from overtone.dictionaries.objectives.base import Objective, StepView


@dataclass(frozen=True)
class ResidualAux(Objective):
    """AuxK: weight x ||e - e_hat||^2 / ||e - mean e||^2, where e = x - x_hat (no gradient) and e_hat decodes the k_aux
    best-scored dead latents of each row, without the constant. Zero when no latent is dead. k_aux None: width / 2.
    Source: Gao et al. 2024, arXiv 2406.04093, section A.2."""

    weight: float = 1 / 32
    k_aux: int | None = None

    def __call__(self, step: StepView) -> Tensor:
        """The term, 0 or more."""
        if not len(step.dead):
            return step.x_hat.new_zeros(())
        error = (step.x - step.x_hat).detach()
        k = min(self.k_aux or max(1, step.x.shape[1] // 2), len(step.dead))
        missed = (error - step.decoded_from(step.dead, k)).square().sum()
        return self.weight * (missed / (error - error.mean(0)).square().sum()).nan_to_num()
