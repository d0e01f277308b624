"""GBA: sparsity by group bias adaptation, a feedback loop on thresholds instead of a price or a budget.

Source: "Taming polysemanticity in LLMs: provable feature recovery via sparse autoencoders", arXiv 2506.14002.
u_m = <w_m, x - b_pre>, w (latents, width) unit rows, tied; y_m = u_m + b_m; z_m = a_m u_m where y_m > 0, else 0;
x_hat = sum_m z_m w_m + b_pre. Loss: reconstruction alone, with gradients to w, a and b_pre. b in [-1, 0] times the
typical length of a state is moved by a rule (maintainers/group_bias): latents that fired more often in the last buffer
than the target of their group are lowered, silent ones raised. Targets fall geometrically from `highest` to `lowest`
over `groups` groups; one group is the paper's BA.
Deviations: 1. a buffer is a share of the training (`every`), not 50 steps; 2. steps of 0.02, not 0.01, for trainings of
some hundred buffers; 3. states share one scale instead of being normalised one by one, and the bound of b follows it;
4. the form whose values jump at the threshold; the formula in the text of the paper subtracts it.
Promises: values not negative, rows independent, unit atoms, exact threshold form; targets are ceilings on how often a
latent fires, not set points. Records of a training tell `bias_drift`, by how much biases still move.
"""

from dataclasses import dataclass

import torch

from overtone.core.settings import require
from overtone.dictionaries.autoencoder import Autoencoder
from overtone.dictionaries.decoders.linear import Linear
from overtone.dictionaries.encoders.tied import Tied
from overtone.dictionaries.maintainers.base import Maintainer
from overtone.dictionaries.maintainers.group_bias import BiasRule, GroupBias
from overtone.dictionaries.maintainers.unit_rows import UnitRows
from overtone.dictionaries.normalisers import Scale
from overtone.dictionaries.objectives.base import Objective
from overtone.dictionaries.objectives.reconstruction import Reconstruction
from overtone.dictionaries.preset import Preset, preset
from overtone.dictionaries.scores import PreActivation
from overtone.dictionaries.selectors.threshold import Threshold
from overtone.dictionaries.starts import random_rows
from overtone.dictionaries.values import Rectified


@preset("gba", paper="Taming Polysemanticity in LLMs, arXiv 2506.14002")
@dataclass(frozen=True)
class GBA(Preset):
    """Thresholds move until no latent fires more often than its group may.

    groups: groups of equal size; highest, lowest: largest and smallest target rate; down, up: relative steps of the
    biases; every: share of the training between two of them.
    """

    groups: int = 10
    highest: float = 0.1
    lowest: float = 1e-3
    down: float = 0.02
    up: float = 0.02
    every: float = 1 / 400

    def __post_init__(self) -> None:
        super().__post_init__()
        require(
            0 < self.lowest <= self.highest < 1 and 0 < self.every <= 1,
            f"lowest={self.lowest}, highest={self.highest}, every={self.every}: use 0 < lowest <= highest < 1 and a "
            "share every in (0, 1].",
        )

    @property
    def rates(self) -> tuple[float, ...]:
        """Target rates by group, falling."""
        n = min(self.groups, self.n_latents)
        ratio = self.lowest / self.highest
        return tuple(self.highest * ratio ** (k / max(n - 1, 1)) for k in range(n))

    def build(self, width: int, generator: torch.Generator) -> Autoencoder:
        """An untrained dictionary."""
        rows = random_rows(self.n_latents, width, generator)
        decoder = Linear(width, len(rows))
        decoder.weight.data.copy_(rows)
        encoder, selection = Tied(len(rows), scaled=True), Threshold(self.n_latents)
        return Autoencoder(Scale(), encoder, PreActivation(), selection, Rectified(), decoder).eval()

    def objectives(self) -> tuple[Objective, ...]:
        """Reconstruction."""
        return (Reconstruction(),)

    def maintainers(self) -> tuple[Maintainer, ...]:
        """Unit rows, then the biases."""
        return UnitRows(), GroupBias(BiasRule(self.rates, self.down, self.up), self.every)
