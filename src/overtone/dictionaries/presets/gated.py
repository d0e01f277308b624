"""Gated: one head decides which latents are active, another what they are worth, so that the price shrinks no value.

Source: Rajamanoharan et al. 2024, "Improving dictionary learning with gated sparse autoencoders", arXiv 2404.16014.
pi = (x - b_dec) W^T + b_gate, active where pi > 0; z = ReLU(exp(r) ((x - b_dec) W^T) + b_mag) on the active latents;
x_hat = z W_dec + b_dec. Loss: ||x - x_hat||^2 + lambda sum_i ReLU(pi_i) + ||x - x_hat_gate||^2, where x_hat_gate
decodes ReLU(pi) with a decoder that gets no gradient. Unit rows; Adam without momentum (beta1 = 0).
Deviations: 1. errors are divided by the variance of x and the price by its square root; lambda rises over the first
5 %; 2. no resampling; 3. b_dec starts at the mean row; 4. with `target_l0` the price is steered to it
(maintainers/sparsity_target).
Promises: non-negative codes, rows independent, unit atoms; a latent with theta = b_mag - exp(r) b_gate >= 0 is a
JumpReLU with that threshold.
"""

from dataclasses import dataclass

import torch

from overtone.dictionaries.autoencoder import Autoencoder
from overtone.dictionaries.decoders.linear import Linear
from overtone.dictionaries.encoders.gated import Gated as GatedEncoder
from overtone.dictionaries.maintainers.base import Maintainer
from overtone.dictionaries.maintainers.sparsity_target import SparsityTarget
from overtone.dictionaries.maintainers.unit_rows import UnitRows
from overtone.dictionaries.normalisers import Scale
from overtone.dictionaries.objectives.base import Objective
from overtone.dictionaries.objectives.gate import GateReconstruction
from overtone.dictionaries.objectives.penalty import GateL1
from overtone.dictionaries.objectives.reconstruction import Reconstruction
from overtone.dictionaries.preset import Preset, preset
from overtone.dictionaries.scores import PreActivation
from overtone.dictionaries.selectors.threshold import Threshold
from overtone.dictionaries.starts import random_rows
from overtone.dictionaries.values import GatedMagnitude


@preset(
    "gated",
    paper="Improving dictionary learning with gated sparse autoencoders, arXiv 2404.16014",
    recovers=True,
)
@dataclass(frozen=True)
class Gated(Preset):
    """A gate decides which latents are active, a second head what they are worth.

    sparsity: price on the gates, as in relu_l1; target_l0: active latents per row that the price is steered to
    (None: it stays).
    """

    sparsity: float = 0.6
    target_l0: float | None = None

    @property
    def betas(self) -> tuple[float, float]:
        """No momentum, as in the paper."""
        return 0.0, 0.999

    def build(self, width: int, generator: torch.Generator) -> Autoencoder:
        """An untrained dictionary."""
        rows = random_rows(self.n_latents, width, generator)
        encoder, decoder = GatedEncoder(width, len(rows)), Linear(width, len(rows))
        encoder.weight.data.copy_(rows)
        decoder.weight.data.copy_(rows)
        selection = Threshold(self.n_latents)
        return Autoencoder(Scale(), encoder, PreActivation(), selection, GatedMagnitude(), decoder).eval()

    def objectives(self) -> tuple[Objective, ...]:
        """Reconstruction by the values, price and reconstruction by the gates."""
        return Reconstruction(), GateL1(self.sparsity), GateReconstruction()

    def maintainers(self) -> tuple[Maintainer, ...]:
        """Unit rows and, with a target, the steering of the price."""
        return (UnitRows(), *([] if self.target_l0 is None else [SparsityTarget(self.target_l0)]))
