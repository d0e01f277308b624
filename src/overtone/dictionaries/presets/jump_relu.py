"""JumpReLU: one learned threshold per latent, and a price on the number of active latents.

Source: Rajamanoharan et al. 2024, "Jumping ahead: improving reconstruction fidelity with JumpReLU sparse autoencoders",
arXiv 2407.14435; variants: Conerly et al., Anthropic Circuits Updates, January 2025.
u = (x - b_dec) W_enc^T + b_enc; z = u H(u - theta), theta = exp(log_theta) > 0, (latents,); x_hat = z W_dec + b_dec.
Loss: ||x - x_hat||^2 + lambda ||z||_0, thresholds learned by pseudo-gradients in a window of width `bandwidth`
(dictionaries/jumps), evaluated on pre-activations. Unit rows; Adam without momentum (beta1 = 0).
Deviations: 1. errors are divided by the variance of x; lambda rises over the first 5 %; 2. `threshold` and `bandwidth`
count typical pre-activations of a random direction and are far larger than the paper's (0.001 with E||x||^2 = 1), from
which thresholds need billions of rows to move; 3. `penalty="tanh"` prices tanh(4 z_i) instead; 4. with `target_l0` the
price is (L0 / target - 1)^2 instead, whatever the penalty; 5. `revive` adds the price that pulls dead latents up to
their threshold.
Promises: codes above the latent's threshold, rows independent, unit atoms.
"""

from dataclasses import dataclass

import torch

from overtone.core.settings import require
from overtone.dictionaries.autoencoder import Autoencoder, linear_autoencoder
from overtone.dictionaries.maintainers.base import Maintainer
from overtone.dictionaries.maintainers.unit_rows import UnitRows
from overtone.dictionaries.objectives.base import Objective
from overtone.dictionaries.objectives.penalty import L0, Revive, Tanh
from overtone.dictionaries.objectives.reconstruction import Reconstruction
from overtone.dictionaries.preset import Preset, preset
from overtone.dictionaries.selectors.learned_threshold import LearnedThreshold
from overtone.dictionaries.values import Jump


@preset("jump_relu", paper="Jumping ahead: JumpReLU sparse autoencoders, arXiv 2407.14435", recovers=True)
@dataclass(frozen=True)
class JumpReLU(Preset):
    """A learned threshold per latent, with a price on the number of active latents.

    sparsity: the price of one active latent, as a share of the variance; target_l0: active latents per row that are
    aimed at instead (None: no aim); penalty: "l0" or "tanh"; threshold, bandwidth: where thresholds start and how far
    they see; revive: price that pulls dead latents up.
    """

    sparsity: float = 0.02
    target_l0: float | None = None
    penalty: str = "l0"
    threshold: float = 1.0
    bandwidth: float = 0.5
    revive: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self.penalty in ("l0", "tanh"), f"penalty={self.penalty!r}: price the number ('l0') or 'tanh'.")
        require(self.bandwidth > 0, f"bandwidth={self.bandwidth}: use more than 0, or no threshold learns.")

    @property
    def betas(self) -> tuple[float, float]:
        """No momentum, as in the paper."""
        return 0.0, 0.999

    def build(self, width: int, generator: torch.Generator) -> Autoencoder:
        """An untrained dictionary."""
        selection = LearnedThreshold(self.n_latents, self.threshold, self.bandwidth)
        return linear_autoencoder(width, selection, generator, n_latents=self.n_latents, value=Jump())

    def objectives(self) -> tuple[Objective, ...]:
        """Reconstruction, price, revival."""
        price = Tanh(self.sparsity) if self.penalty == "tanh" else L0(self.sparsity)
        price = price if self.target_l0 is None else L0(1.0, target=self.target_l0)
        return Reconstruction(), price, *([Revive(self.revive)] if self.revive else [])

    def maintainers(self) -> tuple[Maintainer, ...]:
        """Unit rows."""
        return (UnitRows(),)
