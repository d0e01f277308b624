"""g-SAE: TopK that also asks how much each latent matters to the model's loss.

Source: Olmo et al. 2024, "Features that make a difference: leveraging gradients for improved dictionary learning",
arXiv 2411.10397.
As TopK (presets/top_k), with scores s = u (1 + beta p), p_i = sqrt(width) |cos(g, d_i)|, g (rows, width) the gradient
of the language model's loss with respect to the state, d_i the rows of W_dec: u_i <g, d_i> is the first-order change of
the loss when the latent is removed. The k best-scored latents are kept; values are those of TopK. No gradient flows
through the score.
Two protocols at test time, which the copies of the paper at hand do not settle: (a) encode(x), TopK on u, the default
everywhere here; (b) encode(x, {"g": g}), which needs the loss and so the true next token: such codes leak the label and
must not be probed or steered with (studies/g_sae shows it).
Deviations: 1. the paper's term is beta u |<g, d_i>|, whose unit is that of the loss per length. Here influence is told
in proportion to that of a random direction of the same length (root mean square), so that beta has no unit and neither
the reduction of the loss nor the place of a token changes anything. The mean over the row's own latents would do so
too, but to know it takes all of them in full precision, where this one needs none; 2. beta is ours, theirs was not
found; 3. as in `top_k`.
Promises: as TopK; beta = 0 is TopK, and so is a row without a gradient.
"""

from dataclasses import dataclass
from typing import ClassVar

import torch

from overtone.dictionaries.autoencoder import Autoencoder, linear_autoencoder
from overtone.dictionaries.maintainers.base import Maintainer
from overtone.dictionaries.maintainers.unit_rows import UnitRows
from overtone.dictionaries.objectives.auxiliary import ResidualAux
from overtone.dictionaries.objectives.base import Objective
from overtone.dictionaries.objectives.reconstruction import Reconstruction
from overtone.dictionaries.preset import Preset, preset
from overtone.dictionaries.scores import GradientWeighted
from overtone.dictionaries.selectors.rank import Rank


@preset(
    "g_sae",
    paper="Features that make a difference: leveraging gradients for improved dictionary learning, arXiv 2411.10397",
)
@dataclass(frozen=True)
class GSAE(Preset):
    """Keep the k latents of each row with the largest pre-activation times influence on the loss.

    Trained on states with gradients. k: active latents per row; beta: weight of the influence; aux_weight, k_aux: as in
    TopK.
    """

    needs: ClassVar[frozenset[str]] = frozenset({"g"})
    k: int = 32
    beta: float = 1.0
    aux_weight: float = 1 / 32
    k_aux: int | None = None

    def build(self, width: int, generator: torch.Generator) -> Autoencoder:
        """An untrained dictionary."""
        rank, score = Rank("row", self.k), GradientWeighted(self.beta)
        return linear_autoencoder(width, rank, generator, n_latents=self.n_latents, score=score)

    def objectives(self) -> tuple[Objective, ...]:
        """Reconstruction and AuxK."""
        return Reconstruction(), ResidualAux(self.aux_weight, self.k_aux)

    def maintainers(self) -> tuple[Maintainer, ...]:
        """Unit rows."""
        return (UnitRows(),)
