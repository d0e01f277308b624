"""A rectifier with a price on activity, in the recipe of April 2024.

Source: Conerly et al. 2024, Anthropic Circuits Updates, April 2024 (method of Bricken et al. 2023, "Towards
monosemanticity"); L1 x row norm.
u = x W_enc^T + b_enc (no constant subtracted); z = max(u, 0); x_hat = z W_dec + b_dec.
Loss: ||x - x_hat||^2 + lambda sum_i z_i ||d_i||; rows start with norm 0.1 and are free; lambda rises over the first
5 %.
Deviations: 1. the error is divided by the variance of x, the price by its square root times `width`: with E||x||^2 =
width the paper's lambda is `sparsity` x sqrt(width), and `sparsity` means the same at every width; 2. b_dec starts at
the mean row, and b_enc so that the mean row has u = 0; 3. the learning rate follows the other presets' law; 4.
with `target_l0` the price is steered (maintainers/sparsity_target).
Promises: non-negative codes, rows independent; atoms have free norms (`atom_norms`).
"""

from dataclasses import dataclass

import torch

from overtone.dictionaries.autoencoder import Autoencoder, linear_autoencoder
from overtone.dictionaries.maintainers.base import Maintainer
from overtone.dictionaries.maintainers.sparsity_target import SparsityTarget
from overtone.dictionaries.objectives.base import Objective
from overtone.dictionaries.objectives.penalty import L1
from overtone.dictionaries.objectives.reconstruction import Reconstruction
from overtone.dictionaries.preset import Preset, preset
from overtone.dictionaries.selectors.threshold import Threshold


@preset(
    "relu_l1", paper="Circuits Updates April 2024 (Towards monosemanticity, transformer-circuits.pub)", recovers=True
)
@dataclass(frozen=True)
class ReluL1(Preset):
    """Rectified pre-activations, with a price on value times row norm.

    sparsity: the price; 0.2 takes about 0.1 sqrt(L0) off the size of the code; target_l0: active latents per row that
    the price is steered to (None: it stays).
    """

    sparsity: float = 0.2
    target_l0: float | None = None

    def build(self, width: int, generator: torch.Generator) -> Autoencoder:
        """An untrained dictionary."""
        selection = Threshold(self.n_latents)
        return linear_autoencoder(width, selection, generator, n_latents=self.n_latents, centred=False, row_norm=0.1)

    def objectives(self) -> tuple[Objective, ...]:
        """Reconstruction and the price."""
        return Reconstruction(), L1(self.sparsity)

    def maintainers(self) -> tuple[Maintainer, ...]:
        """With a target, the steering of the price."""
        return () if self.target_l0 is None else (SparsityTarget(self.target_l0),)
