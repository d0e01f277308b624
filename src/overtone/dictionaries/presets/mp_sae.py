"""MP-SAE: a dictionary trained through its own matching pursuit, so that later atoms explain what earlier ones left.

Source: Costa et al. 2025, "From flat to hierarchical: extracting sparse representations with matching pursuit", arXiv
2506.03093. r_1 = x - b_pre; for t = 1..k: j = argmax <r_t, d_j>, z_j += v, v = max(<r_t, d_j>, 0), r_{t+1} = r_t - v
d_j; x_hat = b_pre + z D with unit rows D (encoders/unrolled). Loss: ||r_{k+1}||^2 / var(x), differentiated through all
steps. More steps after training: `Pursuit(dictionary, "matching", k=...)`, whose error falls with every step.
Deviations: 1. a row rests where no correlation is positive (the authors' toy code; their library then writes a negative
code); 2. the threshold on the residual is a share of the row's length; 3. dead atoms are those of `Firing`, and each
row pulls the one that suits it best (objectives/revival); 4. no dropout of atoms; 5. learning rate and schedule are
overtone's unless given: the authors' toy run uses lr 3e-2 and betas (0.5, 0.9375).
Promises: at most k active latents per row, none negative, rows independent, unit atoms; residuals never grow with
steps.
"""

from dataclasses import dataclass

import torch

from overtone.dictionaries.autoencoder import Autoencoder
from overtone.dictionaries.decoders.linear import Linear
from overtone.dictionaries.encoders.unrolled import Unrolled
from overtone.dictionaries.maintainers.base import Maintainer
from overtone.dictionaries.maintainers.unit_rows import UnitRows
from overtone.dictionaries.normalisers import Scale
from overtone.dictionaries.objectives.base import Objective
from overtone.dictionaries.objectives.reconstruction import Reconstruction
from overtone.dictionaries.objectives.revival import Revival
from overtone.dictionaries.preset import Preset, preset
from overtone.dictionaries.scores import PreActivation
from overtone.dictionaries.selectors.rank import Rank
from overtone.dictionaries.starts import random_rows
from overtone.dictionaries.values import Rectified


@preset(
    "mp_sae",
    paper="From flat to hierarchical: extracting sparse representations with matching pursuit, arXiv 2506.03093",
    recovers=True,
)
@dataclass(frozen=True)
class MPSAE(Preset):
    """Matching pursuit as encoder, trained through its steps.

    k: steps, so at most k active latents per row; tolerance: a row rests once its residual is no longer than that share
    of the row; revival: weight of the term that pulls dead atoms towards residuals.
    """

    k: int = 32
    tolerance: float = 0.0
    revival: float = 1.0

    @property
    def betas(self) -> tuple[float, float]:
        """The authors' for their toy run: what the residual asks of an atom changes from step to step."""
        return 0.5, 0.9375

    def build(self, width: int, generator: torch.Generator) -> Autoencoder:
        """An untrained dictionary."""
        rows = random_rows(self.n_latents, width, generator)
        decoder = Linear(width, len(rows))
        decoder.weight.data.copy_(rows)
        encoder = Unrolled(self.k, self.tolerance)
        return Autoencoder(Scale(), encoder, PreActivation(), Rank("row", self.k), Rectified(), decoder).eval()

    def objectives(self) -> tuple[Objective, ...]:
        """Reconstruction and the revival of dead atoms."""
        return Reconstruction(), Revival(self.revival)

    def maintainers(self) -> tuple[Maintainer, ...]:
        """Unit rows."""
        return (UnitRows(),)
