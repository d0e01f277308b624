"""AbsTopK: the k largest magnitudes, with their sign, so that one latent can serve both poles of an axis.

Source: "AbsTopK: rethinking sparse autoencoders for bidirectional features", arXiv 2510.00404.
u = (x - b_dec) W_enc^T + b_enc; z_i = u_i for the k largest |u_i| of the row, else 0; x_hat = z W_dec + b_dec.
AuxK is signed too: among dead latents the largest |u|, sign kept. scope "batch" keeps the k x rows largest magnitudes
of the batch, with a two-sided threshold |u| > theta at inference; the authors' first code does that, the paper ranks
rows.
Deviations: 1. the residual of AuxK carries no gradient; 2. one factor scales all rows instead of centring each; 3. rows
are renormalised after the update, not before.
Promises: exactly k active latents per row (scope "row"), of either sign, unit atoms.
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
from overtone.dictionaries.scores import Magnitude
from overtone.dictionaries.selectors.rank import Rank, check_budget
from overtone.dictionaries.values import Signed


@preset(
    "abs_top_k",
    paper="AbsTopK: rethinking sparse autoencoders for bidirectional features, arXiv 2510.00404",
    recovers=True,
)
@dataclass(frozen=True)
class AbsTopK(Preset):
    """Keep the k largest magnitudes of each row, with their sign.

    k: active latents per row; scope: "row", or "batch" for k per row on average, which may then be a fraction;
    aux_weight, k_aux: as in TopK.
    """

    k: int | float = 32
    scope: str = "row"
    aux_weight: float = 1 / 32
    k_aux: int | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        check_budget(self.scope, self.k)

    def build(self, width: int, generator: torch.Generator) -> Autoencoder:
        """An untrained dictionary."""
        selection = Rank(self.scope, self.k)
        return linear_autoencoder(
            width, selection, generator, n_latents=self.n_latents, score=Magnitude(), value=Signed()
        )

    def objectives(self) -> tuple[Objective, ...]:
        """Reconstruction and signed AuxK."""
        return Reconstruction(), ResidualAux(self.aux_weight, self.k_aux)

    def maintainers(self) -> tuple[Maintainer, ...]:
        """Unit rows and, in scope "batch", the threshold."""
        return (UnitRows(), ThresholdMean()) if self.scope == "batch" else (UnitRows(),)
