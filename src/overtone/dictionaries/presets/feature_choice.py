"""Feature Choice: each latent gets a number of rows instead of each row a number of latents.

Source: Ayonrinde 2024, "Adaptive sparse allocation with Mutual Choice and Feature Choice sparse autoencoders", arXiv
2411.02124.
Affinities r = max(u, 0), (rows, latents); of column i the m_i largest are kept, sum_i m_i = k x rows. m_i follows a
Zipf-Mandelbrot law, m_i / rows = k (rank_i + q)^-s / Z; exponent s = 0 gives every latent the same. Inference: a
threshold for each latent (selectors/columns). Auxiliary loss: aux_zipf (presets/mutual_choice).
Deviations: 1. s, q, margin and memory are ours, the paper's constants could not be found; 2. ranks are those of
`demand` (maintainers/zipf), since the density of a latent here is what it was granted; they move slowly, there are no
phases of training; 3. shares below one row of a batch are given in some batches only; 4. thresholds are running means
of the middle between the last affinity kept and the first one dropped, or of more where no row is given.
Promises: in training each latent gets its rows as far as its affinities are positive, so that none is dead, and a batch
at most k x rows; thresholds keep L0 in eval mode near that of training; none negative; unit atoms.
"""

from dataclasses import dataclass

import torch

from overtone.dictionaries.autoencoder import Autoencoder, linear_autoencoder
from overtone.dictionaries.maintainers.base import Maintainer
from overtone.dictionaries.maintainers.column_threshold import ColumnThreshold
from overtone.dictionaries.maintainers.unit_rows import UnitRows
from overtone.dictionaries.maintainers.zipf import ZipfDensity
from overtone.dictionaries.objectives.auxiliary import ResidualAux
from overtone.dictionaries.objectives.base import Objective
from overtone.dictionaries.objectives.reconstruction import Reconstruction
from overtone.dictionaries.preset import Preset, preset
from overtone.dictionaries.presets.mutual_choice import PAPER
from overtone.dictionaries.selectors.columns import Columns


@preset("feature_choice", paper=PAPER)
@dataclass(frozen=True)
class FeatureChoice(Preset):
    """Keep, for each latent, the rows of a batch that want it most: so many as a Zipf law of its rank says.

    k: mean active latents per row, which may be a fraction; exponent, shift: s and q of the law; aux_weight, k_aux: as
    in TopK; margin: share of its expected density below which the auxiliary loss asks a latent.
    """

    k: int | float = 32
    exponent: float = 0.9
    shift: float = 1.0
    aux_weight: float = 1 / 32
    k_aux: int | None = None
    margin: float = 0.2

    def build(self, width: int, generator: torch.Generator) -> Autoencoder:
        """An untrained dictionary."""
        return linear_autoencoder(width, Columns(self.n_latents, self.k), generator, n_latents=self.n_latents)

    def objectives(self) -> tuple[Objective, ...]:
        """Reconstruction and aux_zipf."""
        return Reconstruction(), ResidualAux(self.aux_weight, self.k_aux, "zipf.under")

    def maintainers(self) -> tuple[Maintainer, ...]:
        """Unit rows, budgets and densities, thresholds."""
        law = {"exponent": self.exponent, "shift": self.shift, "margin": self.margin}
        return UnitRows(), ZipfDensity(self.k, memory=self.window, **law), ColumnThreshold()
