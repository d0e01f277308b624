"""vSAE: a TopK autoencoder whose values are drawn around their means, with a price on leaving the standard normal.

Source: "Analysis of variational sparse autoencoders", arXiv 2509.22994.
mu = ReLU((x - c) W_enc^T + b_enc), (rows, latents); z = mu + sigma eps in training, mu otherwise; the k largest |z| of
the row are kept; x_hat = z W_dec + c. Loss: ||x - x_hat||^2 / var(x) + AuxK + beta(t) KL(N(mu, sigma^2) || N(0, 1)) /
var(x), KL summed over all latents, or over the selected ones; beta(t) rises over the first tenth.
noise: "learned" (log sigma^2 is affine in x), "fixed" (sigma, one number), "none". With noise "none" or "fixed" the
price is mu^2 / 2, an L2 penalty, as the KL is then but for a constant. The runs kept in the authors' repository are
"none". Sampling, price, its mask, free or unit rows and AuxK are switches, because the published comparison changes
several at once.
Deviations: 1. the constant is subtracted before encoding, as in the baselines it is compared with; 2. rows have length
one at first, not 0.1, and are free afterwards unless `unit_rows`; 3. weights of the terms refer to E||x||^2 = width, so
that beta can be carried over to other states; 4. mu is not cut to [-10, 10] in the price, where its gradient would end.
Promises: at most k active latents per row, rows independent; no random numbers in eval mode. It is a method to ablate,
not one to recommend: the authors' own verdict.
"""

from dataclasses import dataclass

import torch

from overtone.core.settings import require
from overtone.dictionaries.autoencoder import Autoencoder
from overtone.dictionaries.decoders.linear import Linear as LinearDecoder
from overtone.dictionaries.encoders.gaussian import Gaussian
from overtone.dictionaries.encoders.linear import Linear
from overtone.dictionaries.maintainers.base import Maintainer
from overtone.dictionaries.maintainers.fresh_noise import FreshNoise
from overtone.dictionaries.maintainers.unit_rows import UnitRows
from overtone.dictionaries.normalisers import Scale
from overtone.dictionaries.objectives.auxiliary import ResidualAux
from overtone.dictionaries.objectives.base import Objective
from overtone.dictionaries.objectives.prior import Prior
from overtone.dictionaries.objectives.reconstruction import Reconstruction
from overtone.dictionaries.preset import Preset, preset
from overtone.dictionaries.sampling import Drawn, DrawnMagnitude
from overtone.dictionaries.scores import Magnitude, PreActivation
from overtone.dictionaries.selectors.rank import Rank
from overtone.dictionaries.starts import random_rows
from overtone.dictionaries.values import Rectified, Signed

NOISES = ("learned", "fixed", "none")


@preset("v_sae", paper="Analysis of Variational Sparse Autoencoders, arXiv 2509.22994")
@dataclass(frozen=True)
class VSAE(Preset):
    """Draw values around their means in training, and keep the means near a standard normal.

    k: active latents per row; noise: "learned", "fixed" or "none"; sigma: the fixed standard deviation; beta: price of
    the divergence; selected: only active latents pay it; rectified: means are not negative; unit_rows: decoder rows of
    length one; aux_weight, k_aux: as in top_k.
    """

    k: int = 32
    noise: str = "learned"
    sigma: float = 1.0
    beta: float = 0.01
    selected: bool = False
    rectified: bool = True
    unit_rows: bool = False
    aux_weight: float = 0.0
    k_aux: int | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self.noise in NOISES, f"noise={self.noise!r}: use {', '.join(NOISES)}.")

    @property
    def noisy(self) -> bool:
        """Whether values are drawn; without noise, score and value are those of the host, TopK or AbsTopK."""
        return self.noise == "learned" or (self.noise == "fixed" and self.sigma > 0)

    def build(self, width: int, generator: torch.Generator) -> Autoencoder:
        """An untrained dictionary."""
        rows = random_rows(self.n_latents, width, generator)
        encoder = (Gaussian if self.noise == "learned" else Linear)(width, len(rows))
        decoder = LinearDecoder(width, len(rows))
        encoder.weight.data.copy_(rows)
        decoder.weight.data.copy_(rows)
        score, value = (PreActivation(), Rectified()) if self.rectified else (Magnitude(), Signed())
        if self.noisy:
            score = DrawnMagnitude(rectified=self.rectified)
            value = drawn = Drawn(sigma=None if self.noise == "learned" else self.sigma, rectified=self.rectified)
            drawn.seed.copy_(torch.randint(2**62, (), generator=generator))
        return Autoencoder(Scale(), encoder, score, Rank("row", self.k), value, decoder).eval()

    def objectives(self) -> tuple[Objective, ...]:
        """Reconstruction, AuxK where it has a weight, and the price; log-variances need its dense pass even at 0."""
        aux = (ResidualAux(self.aux_weight, self.k_aux),) if self.aux_weight else ()
        prior = (Prior(self.beta, self.rectified, self.selected),) if self.beta or self.noise == "learned" else ()
        return (Reconstruction(), *aux, *prior)

    def maintainers(self) -> tuple[Maintainer, ...]:
        """The noise of the next batch, and unit rows where asked for."""
        return (*((FreshNoise(),) if self.noisy else ()), *((UnitRows(),) if self.unit_rows else ()))
