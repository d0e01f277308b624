"""Mutual Choice: the batch spends its budget freely, and latents that are used too little are asked to help.

Source: Ayonrinde 2024, "Adaptive sparse allocation with Mutual Choice and Feature Choice sparse autoencoders", arXiv
2411.02124.
Affinities r = max(u, 0), (rows, latents); the k x rows largest of a batch are kept (which is BatchTopK,
presets/batch_top_k). aux_zipf_loss: AuxK over U = {i: rho_i < margin rho*_i}, rho_i the running density of latent i and
rho*_i = k (rank_i + q)^-s / Z its Zipf-Mandelbrot expectation (maintainers/zipf).
Deviations: 1. s, q, margin and the density's memory are ours, the paper's constants could not be found; 2. the
auxiliary loss is normalised as AuxK, its weight and k_aux are those that recovered most atoms of planted rows; 3. as in
`batch_top_k`.
Promises: as BatchTopK; with aux="dead" and equal weights it is BatchTopK.
"""

import math
from dataclasses import dataclass

import torch

from overtone.core.settings import require
from overtone.dictionaries.autoencoder import Autoencoder, linear_autoencoder
from overtone.dictionaries.maintainers.base import Maintainer
from overtone.dictionaries.maintainers.threshold_mean import ThresholdMean
from overtone.dictionaries.maintainers.unit_rows import UnitRows
from overtone.dictionaries.maintainers.zipf import ZipfDensity
from overtone.dictionaries.objectives.auxiliary import ResidualAux
from overtone.dictionaries.objectives.base import Objective
from overtone.dictionaries.objectives.reconstruction import Reconstruction
from overtone.dictionaries.preset import Preset, preset
from overtone.dictionaries.selectors.rank import Rank

PAPER = "Adaptive sparse allocation with Mutual Choice and Feature Choice sparse autoencoders, arXiv 2411.02124"


@preset("mutual_choice", paper=PAPER, recovers=True)
@dataclass(frozen=True)
class MutualChoice(Preset):
    """Keep the k x rows largest pre-activations of each batch; an auxiliary loss for latents below a Zipf law.

    k: mean active latents per row, which may be a fraction; aux: whom the auxiliary loss asks, "zipf" or "dead";
    aux_weight: its weight; k_aux: latents it may use in a row (None: k, rounded up); exponent, shift: s and q of the
    law; margin: share of its expected density below which a latent is asked.
    """

    k: int | float = 32
    aux: str = "zipf"
    aux_weight: float = 1 / 4
    k_aux: int | None = None
    exponent: float = 0.9
    shift: float = 1.0
    margin: float = 0.2

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self.aux in ("zipf", "dead"), f"aux={self.aux!r}: the auxiliary loss asks 'zipf' or 'dead' latents.")

    def build(self, width: int, generator: torch.Generator) -> Autoencoder:
        """An untrained dictionary."""
        return linear_autoencoder(width, Rank("batch", self.k), generator, n_latents=self.n_latents)

    def objectives(self) -> tuple[Objective, ...]:
        """Reconstruction and the auxiliary loss."""
        return Reconstruction(), ResidualAux(
            self.aux_weight, self.k_aux or math.ceil(self.k), "zipf.under" if self.aux == "zipf" else ""
        )

    def maintainers(self) -> tuple[Maintainer, ...]:
        """Unit rows, the threshold, densities."""
        law = {"exponent": self.exponent, "shift": self.shift, "margin": self.margin}
        return UnitRows(), ThresholdMean(), ZipfDensity(self.k, memory=self.window, **law)
