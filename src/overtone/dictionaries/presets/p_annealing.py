"""p-annealing: an L1 price that turns into one on the number of active latents while training goes on.

Source: Karvonen et al. 2024, "Measuring progress in dictionary learning with board game models", arXiv 2408.00113.
z = ReLU((x - b_dec) W_enc^T + b_enc); x_hat = z W_dec + b_dec, unit rows. Loss: ||x - x_hat||^2 + lambda_t sum_i z_i^p,
p = 1 at first, then down to `end` in `updates` steps; at each, lambda_t is scaled so that the price keeps its size
(maintainers/annealing).
Deviations: 1. units of error and price as in `relu_l1`; 2. annealing starts after a share of the training, not after
15 000 steps; 3. below z = 0.001 the power goes on along its tangent, since its slope has no bound; 4. no resampling;
5. with `target_l0` the price is steered (maintainers/sparsity_target).
Promises: non-negative codes, rows independent, unit atoms; with end = 1 it is ReLU + L1 on unit rows.
"""

from dataclasses import dataclass

import torch

from overtone.core.settings import require
from overtone.dictionaries.autoencoder import Autoencoder, linear_autoencoder
from overtone.dictionaries.maintainers.annealing import Annealing
from overtone.dictionaries.maintainers.base import Maintainer
from overtone.dictionaries.maintainers.sparsity_target import SparsityTarget
from overtone.dictionaries.maintainers.unit_rows import UnitRows
from overtone.dictionaries.objectives.base import Objective
from overtone.dictionaries.objectives.penalty import Power
from overtone.dictionaries.objectives.reconstruction import Reconstruction
from overtone.dictionaries.preset import Preset, preset
from overtone.dictionaries.selectors.threshold import Threshold


@preset(
    "p_annealing",
    paper="Measuring progress in dictionary learning with board game models, arXiv 2408.00113",
    recovers=True,
)
@dataclass(frozen=True)
class PAnnealing(Preset):
    """Rectified pre-activations, with a price on z^p whose power p falls from 1.

    sparsity: the price, as in relu_l1; end: the last power; start: share of the training before p falls; updates: steps
    in which it falls; target_l0: active latents per row that the price is steered to (None: it is not).
    """

    sparsity: float = 0.2
    end: float = 0.2
    start: float = 0.5
    updates: int = 10
    target_l0: float | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self.sparsity >= 0, f"sparsity={self.sparsity}: a price is not negative.")
        require(
            0 < self.end <= 1 and 0 <= self.start < 1 and self.updates >= 1,
            f"end={self.end}, start={self.start}, updates={self.updates}: use a power in (0, 1], a share in [0, 1) and "
            "at least one update.",
        )

    def build(self, width: int, generator: torch.Generator) -> Autoencoder:
        """An untrained dictionary."""
        return linear_autoencoder(width, Threshold(self.n_latents), generator, n_latents=self.n_latents)

    def objectives(self) -> tuple[Objective, ...]:
        """Reconstruction and the price."""
        return Reconstruction(), Power(self.sparsity)

    def maintainers(self) -> tuple[Maintainer, ...]:
        """Unit rows, the power and, with a target, the steering of the price."""
        steered = [] if self.target_l0 is None else [SparsityTarget(self.target_l0)]
        return UnitRows(), Annealing(self.end, self.start, self.updates), *steered
