"""TopK with an auxiliary loss for dead latents.

Source: Gao et al. 2024, "Scaling and evaluating sparse autoencoders", arXiv 2406.04093.
x in units of the input scale; u = (x - b_dec) W_enc^T + b_enc, (rows, latents); z = ReLU(TopK_k(u));
x_hat = z W_dec + b_dec. Loss: ||x - x_hat||^2 / var(x) + aux_weight * AuxK (objectives/auxiliary).
Deviations: 1. the constant b_dec starts at the mean row, not the geometric median; 2. the scale is one factor for all
rows, not per-row centring; 3. no average of the weights.
Promises: at most k active latents per row, none negative, rows independent, unit atoms.
"""

from dataclasses import dataclass

import torch

from overtone.dictionaries.autoencoder import Autoencoder, linear_autoencoder
from overtone.dictionaries.maintainers.base import Maintainer
from overtone.dictionaries.maintainers.unit_rows import UnitRows
from overtone.dictionaries.objectives.auxiliary import ResidualAux
from overtone.dictionaries.objectives.base import Objective
from overtone.dictionaries.objectives.reconstruction import Reconstruction
from overtone.dictionaries.preset import Preset, preset
from overtone.dictionaries.selectors.rank import Rank


@preset("top_k", paper="Scaling and evaluating sparse autoencoders, arXiv 2406.04093", recovers=True)
@dataclass(frozen=True)
class TopK(Preset):
    """Keep the k largest pre-activations of each row.

    k: active latents per row; aux_weight: weight of the auxiliary loss; k_aux: latents it may use (None: width / 2).
    """

    k: int = 32
    aux_weight: float = 1 / 32
    k_aux: int | None = None

    def build(self, width: int, generator: torch.Generator) -> Autoencoder:
        """An untrained dictionary."""
        return linear_autoencoder(width, Rank("row", self.k), generator, n_latents=self.n_latents)

    def objectives(self) -> tuple[Objective, ...]:
        """Reconstruction and AuxK."""
        return Reconstruction(), ResidualAux(self.aux_weight, self.k_aux)

    def maintainers(self) -> tuple[Maintainer, ...]:
        """Unit rows."""
        return (UnitRows(),)
