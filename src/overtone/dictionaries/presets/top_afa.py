"""top-AFA: as many latents for each row as it takes for the code to be as long as the state.

Source: Lee et al. 2025, "Evaluating and designing sparse autoencoders by approximating quasi-orthogonality", arXiv
2503.24277, and its repository (SewoongLee/top-afa-sae).
If the active unit rows d_i of W_dec are nearly orthogonal, ||z|| is near ||x - b_dec||. r = max(u, 0), (rows, latents);
scores s_i = (r_i ||d_i||)^2, sorted; n_j = sqrt(s_1 + ... + s_j); k(x) = 1 + argmin_j |n_j - ||x - b_dec|||; the k(x)
best are kept. Loss: ||x - x_hat||^2 / var(x) + match (||z|| - ||x - b_dec||)^2 / var(x) + AuxK.
Deviations: 1. the loss matches the centred length, as the selection does; the authors' loss takes ||x||; 2. one factor
scales all rows instead of standardising each; 3. both terms are sums over coordinates: their lambda_AFA beside a mean
over `width` coordinates is match = lambda_AFA x width (12 to 48 in the paper); 4. at most `most` latents per row.
Promises: rows independent, none negative, unit atoms. The number of active latents is no setting but follows `match`:
it is a price of sparsity under another name.
"""

from dataclasses import dataclass

import torch

from overtone.dictionaries.autoencoder import Autoencoder, linear_autoencoder
from overtone.dictionaries.maintainers.base import Maintainer
from overtone.dictionaries.maintainers.unit_rows import UnitRows
from overtone.dictionaries.objectives.auxiliary import ResidualAux
from overtone.dictionaries.objectives.base import Objective
from overtone.dictionaries.objectives.norm_match import NormMatch
from overtone.dictionaries.objectives.reconstruction import Reconstruction
from overtone.dictionaries.preset import Preset, preset
from overtone.dictionaries.scores import Contribution
from overtone.dictionaries.selectors.energy import Energy


@preset(
    "top_afa",
    paper="Evaluating and designing sparse autoencoders by approximating quasi-orthogonality, arXiv 2503.24277",
)
@dataclass(frozen=True)
class TopAFA(Preset):
    """Keep, in each row, the largest contributions until the code is as long as the state.

    match: weight of the loss that makes them equally long; most: upper bound of active latents per row (None: all);
    aux_weight, k_aux: as in TopK.
    """

    match: float = 1.0
    most: int | None = None
    aux_weight: float = 1 / 32
    k_aux: int | None = None

    def build(self, width: int, generator: torch.Generator) -> Autoencoder:
        """An untrained dictionary."""
        selection, score = Energy(self.most), Contribution()
        return linear_autoencoder(width, selection, generator, n_latents=self.n_latents, score=score)

    def objectives(self) -> tuple[Objective, ...]:
        """Reconstruction, the match of lengths, AuxK."""
        return Reconstruction(), NormMatch(self.match), ResidualAux(self.aux_weight, self.k_aux)

    def maintainers(self) -> tuple[Maintainer, ...]:
        """Unit rows."""
        return (UnitRows(),)
