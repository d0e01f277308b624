"""Crosscoder: one code for several views of the same rows, such as some layers of a model or two models.

Source: Lindsey et al. 2024, Anthropic, "Sparse crosscoders for cross-layer features and model diffing"; selection by
budget: Minder et al. 2025, "Robustly identifying concepts introduced during chat fine-tuning using crosscoders", arXiv
2504.02922.
Views x^v, (rows, width_v), concatenated to x: u = x W_enc^T + b_enc; z = ReLU(u) on the k x rows largest
u_i sum_v ||d_i^v|| of the batch; x_hat = z W_dec + b_dec. Loss: ||x - x_hat||^2 / var(x) + aux_weight * AuxK. With
`sparsity` instead: all u > 0 and lambda sum_i z_i sum_v ||d_i^v||, the original. Each view is scaled to E||x^v||^2 =
width_v; rows are free and equal the encoder's at first: of length 1, or with blocks of length 0.1 with a price.
Deviations: 1. the budget is the default, since a price shrinks one block of shared latents to nothing (arXiv
2504.02922); 2. units of error and price as in `relu_l1`; b_dec starts at the mean row, b_enc so that the mean row has
u = 0; 3. with a budget W_enc learns from x less the mean row, which b_enc makes up for: else it would learn little but
the mean where that is long.
Promises: non-negative codes; k per row on average, within 5 % of it in eval mode; atoms are the views' blocks beside
each other and have free norms.
"""

from dataclasses import dataclass, replace

import torch

from overtone.core.settings import require
from overtone.dictionaries.autoencoder import Autoencoder
from overtone.dictionaries.decoders.blocks import Blocks
from overtone.dictionaries.decoders.linear import Linear as LinearDecoder
from overtone.dictionaries.encoders.linear import Linear as LinearEncoder
from overtone.dictionaries.maintainers.base import Maintainer
from overtone.dictionaries.maintainers.threshold_mean import ThresholdMean
from overtone.dictionaries.normalisers import ViewScale
from overtone.dictionaries.objectives.auxiliary import ResidualAux
from overtone.dictionaries.objectives.base import Objective
from overtone.dictionaries.objectives.penalty import L1
from overtone.dictionaries.objectives.reconstruction import Reconstruction
from overtone.dictionaries.preset import Preset, preset
from overtone.dictionaries.scores import NormedPreActivation
from overtone.dictionaries.selectors.rank import Rank
from overtone.dictionaries.selectors.threshold import Threshold
from overtone.dictionaries.starts import random_rows
from overtone.dictionaries.values import Rectified


@preset("crosscoder", paper="Sparse crosscoders for cross-layer features and model diffing (transformer-circuits.pub)")
@dataclass(frozen=True)
class Crosscoder(Preset):
    """One code for several views of the same rows; each latent has a direction in each view.

    k: mean active latents per row, which may be a fraction; sparsity: a price instead of the budget; views: number of
    views of equal width, for one matrix that holds them beside each other; widths: of each view, where they differ
    (sites are a view each, and tell both); aux_weight: as in TopK, without a price.
    """

    several = True
    k: int | float = 32
    sparsity: float | None = None
    views: int | None = None
    widths: tuple[int, ...] = ()
    aux_weight: float = 1 / 32

    @classmethod
    def example(cls, n_latents: int, k: int | float) -> "Crosscoder":
        """As for every preset, with two views of equal width."""
        return cls(n_latents, k=k, views=2)

    def of_views(self, widths: tuple[int, ...]) -> "Crosscoder":
        """A view for each site. Raises SettingError where other `views` or `widths` were asked for."""
        n = len(widths)
        require(self.views in (None, n), f"views={self.views}: there are {n} sites. Leave `views` out.")
        require(self.widths in ((), widths), f"widths={self.widths}: the sites have {widths}. Leave `widths` out.")
        return replace(self, views=n, widths=widths)

    def build(self, width: int, generator: torch.Generator) -> Autoencoder:
        """An untrained dictionary of views whose widths add up to `width`. Raises SettingError if they do not, or if
        neither `views` nor `widths` says what they are."""
        views = self.views or len(self.widths)
        widths = self.widths or (width // max(1, views),) * views
        require(
            sum(widths) == width,
            f"{width} columns are not {self.widths or views or 'known to be several'} views beside each other. Name a "
            "site for each view (site=..., or --site), or give the number of views of equal width (views) or the width "
            "of each (widths).",
        )
        blocks = [random_rows(self.n_latents, w, generator) for w in widths]
        rows = torch.cat(blocks, 1) * (0.1 if self.sparsity is not None else len(widths) ** -0.5)
        encoder, decoder = LinearEncoder(width, len(rows)), LinearDecoder(width, len(rows))
        for part in (encoder, decoder):
            part.weight.data.copy_(rows)
        selection = Rank("batch", self.k) if self.sparsity is None else Threshold(self.n_latents)
        return Autoencoder(
            ViewScale(widths), encoder, NormedPreActivation(), selection, Rectified(), Blocks(decoder, widths),
            centred=False,
        ).eval()  # fmt: skip

    def objectives(self) -> tuple[Objective, ...]:
        """Reconstruction and AuxK, or the price."""
        return Reconstruction(), ResidualAux(self.aux_weight) if self.sparsity is None else L1(self.sparsity)

    def maintainers(self) -> tuple[Maintainer, ...]:
        """The threshold that stands in for the budget."""
        return (ThresholdMean(),) if self.sparsity is None else ()
