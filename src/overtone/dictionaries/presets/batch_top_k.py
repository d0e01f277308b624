"""BatchTopK: a budget for the batch instead of one for each row.

Source: Bussmann, Leask, Nanda 2024, "BatchTopK sparse autoencoders", arXiv 2412.06410.
As TopK, but the k x rows largest positive pre-activations of the whole batch are kept, so that rich rows get more
latents than plain ones. Inference: z = u where u > theta, one threshold for all latents: the running mean of the
smallest kept pre-activation (maintainers/threshold_mean), so that eval mode treats each row alone.
Deviations: 1. the running mean starts at its first value and forgets over 2 % of the training, not at a fixed rate from
0; 2. as in `top_k`, 1 and 2.
Promises: k active latents per row on average in training, within 5 % of it in eval mode; none negative; unit atoms.
"""

from dataclasses import dataclass

import torch

from overtone.dictionaries.autoencoder import Autoencoder, linear_autoencoder
from overtone.dictionaries.maintainers.base import Maintainer
from overtone.dictionaries.maintainers.threshold_mean import ThresholdMean
from overtone.dictionaries.maintainers.unit_rows import UnitRows
from overtone.dictionaries.objectives.auxiliary import ResidualAux
from overtone.dictionaries.objectives.base import Objective
from overtone.dictionaries.objectives.reconstruction import Reconstruction
from overtone.dictionaries.preset import Preset, preset
from overtone.dictionaries.selectors.rank import Rank


@preset("batch_top_k", paper="BatchTopK sparse autoencoders, arXiv 2412.06410", recovers=True)
@dataclass(frozen=True)
class BatchTopK(Preset):
    """Keep the k x rows largest pre-activations of each batch; a threshold stands in for that at inference.

    k: mean active latents per row, which may be a fraction; aux_weight: weight of the auxiliary loss; k_aux: latents it
    may use (None: width / 2).
    """

    k: int | float = 32
    aux_weight: float = 1 / 32
    k_aux: int | None = None

    def build(self, width: int, generator: torch.Generator) -> Autoencoder:
        """An untrained dictionary."""
        return linear_autoencoder(width, Rank("batch", self.k), generator, n_latents=self.n_latents)

    def objectives(self) -> tuple[Objective, ...]:
        """Reconstruction and AuxK."""
        return Reconstruction(), ResidualAux(self.aux_weight, self.k_aux)

    def maintainers(self) -> tuple[Maintainer, ...]:
        """Unit rows and the threshold."""
        return UnitRows(), ThresholdMean()
