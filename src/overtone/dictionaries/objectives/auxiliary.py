"""Latents that are dead, or used too little, are asked to explain what the others miss."""

from dataclasses import dataclass

from torch import Tensor

from overtone.dictionaries.objectives.base import Objective, StepView


@dataclass(frozen=True)
class ResidualAux(Objective):
    """AuxK: weight x ||e - e_hat||^2 / ||e - mean e||^2, where e = x - x_hat (no gradient) and e_hat decodes the k_aux
    best-scored dead latents of each row, without the constant. Zero when no latent is dead. k_aux None: width / 2.
    Source: Gao et al. 2024, arXiv 2406.04093, section A.2.

    among: the list of latents to ask instead of the dead, as a maintainer publishes it; "zipf.under" gives
    aux_zipf_loss (Ayonrinde 2024, arXiv 2411.02124).
    """

    sliceable = True
    needs_values = False

    weight: float = 1 / 32
    k_aux: int | None = None
    among: str = ""

    def __call__(self, step: StepView) -> Tensor:
        """The term, 0 or more."""
        asked = step.state[self.among] if self.among else step.dead
        if not len(asked):
            return step.missed.new_zeros(())
        error = -step.missed.detach()
        k = min(self.k_aux or max(1, step.x.shape[1] // 2), len(asked))
        missed = (error - step.decoded_from(asked, k)).square().sum()
        return self.weight * (missed / (error - error.mean(0)).square().sum()).nan_to_num()
