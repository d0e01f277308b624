"""Matryoshka: BatchTopK whose first latents must do without the later ones, so that general features stay whole.

Source: Bussmann, Nabeshima, Karvonen, Nanda 2025, "Learning multi-level features with Matryoshka sparse autoencoders",
arXiv 2503.17547.
One code z (k x rows best over all latents, presets/batch_top_k); prefixes m_1 < ... < m_G = F, each twice the one
before.
Loss: mean over g of ||x - (z[:m_g] W_dec[:m_g] + b_dec)||^2 / var(x) + aux_weight * AuxK of the full reconstruction.
Deviations: 1. the authors' code counts the reconstruction from b_dec alone as one term more and averages over G + 1;
others sum, so that AuxK weighs 1/G as much; 2. `sampled` draws the prefixes of each batch from a Pareto law and keeps
the latents sorted by what they contribute (maintainers/prefixes, Nabeshima's variant); 3. as in `batch_top_k`.
Promises: as BatchTopK; with one group it is BatchTopK. Not that planted atoms come back: a short prefix misses less
with a latent for several of them, and the loss is lower there than at the truth (docs/log, 2026-11-27).
"""

from dataclasses import dataclass

import torch

from overtone.dictionaries.autoencoder import Autoencoder, linear_autoencoder
from overtone.dictionaries.maintainers.base import Maintainer
from overtone.dictionaries.maintainers.prefixes import SampledPrefixes
from overtone.dictionaries.maintainers.threshold_mean import ThresholdMean
from overtone.dictionaries.maintainers.unit_rows import UnitRows
from overtone.dictionaries.objectives.auxiliary import ResidualAux
from overtone.dictionaries.objectives.base import Objective
from overtone.dictionaries.objectives.nested import NestedReconstruction
from overtone.dictionaries.preset import Preset, preset
from overtone.dictionaries.selectors.rank import Rank


@preset(
    "matryoshka",
    paper="Learning multi-level features with Matryoshka sparse autoencoders, arXiv 2503.17547",
)
@dataclass(frozen=True)
class Matryoshka(Preset):
    """Nested dictionaries in one: every prefix of the latents learns to reconstruct by itself.

    k: mean active latents per row, which may be a fraction; groups: number of prefixes; sampled: draw them anew for
    each batch; aux_weight, k_aux: as in TopK.
    """

    k: int | float = 32
    groups: int = 5
    sampled: bool = False
    aux_weight: float = 1 / 32
    k_aux: int | None = None

    @property
    def prefixes(self) -> tuple[int, ...]:
        """Ascending numbers of latents, the last all of them; fewer than `groups` where latents are few."""
        halves = (self.n_latents // 2**i for i in range(self.groups))
        return tuple(sorted({size for size in halves if size >= 1}))

    def build(self, width: int, generator: torch.Generator) -> Autoencoder:
        """An untrained dictionary."""
        return linear_autoencoder(width, Rank("batch", self.k), generator, n_latents=self.n_latents)

    def objectives(self) -> tuple[Objective, ...]:
        """Nested reconstructions and AuxK."""
        nested = NestedReconstruction(None if self.sampled else self.prefixes)
        return nested, ResidualAux(self.aux_weight, self.k_aux)

    def maintainers(self) -> tuple[Maintainer, ...]:
        """Unit rows, the threshold and, where they are sampled, the prefixes."""
        return UnitRows(), ThresholdMean(), *([SampledPrefixes(self.groups)] if self.sampled else [])
