"""Transcoder: from a block's input to its output, through a sparse code.

Source: Dunefsky, Chlenski, Nanda 2024, "Transcoders find interpretable LLM feature circuits", arXiv 2406.11944.
x: input of an MLP, (rows, width); y: its output, (rows, width_out). z = ReLU(x W_enc^T + b_enc);
y_hat = z W_dec + b_dec. Loss: ||y - y_hat||^2 + lambda sum_i z_i ||d_i||.
Deviations: 1. the price counts value times row norm, as in `relu_l1`, in whose units error and price are; 2. b_dec
starts at the mean of y, b_enc so that the mean of x has u = 0; 3. with `target_l0` the price is steered
(maintainers/sparsity_target).
Promises: non-negative codes, rows independent; atoms lie in the space of y and have free norms.
"""

from dataclasses import dataclass

import torch

from overtone.dictionaries.autoencoder import Autoencoder
from overtone.dictionaries.maintainers.base import Maintainer
from overtone.dictionaries.maintainers.sparsity_target import SparsityTarget
from overtone.dictionaries.objectives.base import Objective
from overtone.dictionaries.objectives.penalty import L1
from overtone.dictionaries.objectives.reconstruction import Reconstruction
from overtone.dictionaries.preset import Preset, preset
from overtone.dictionaries.selectors.threshold import Threshold
from overtone.dictionaries.transcoding import linear_transcoder


@preset("transcoder", paper="Transcoders find interpretable LLM feature circuits, arXiv 2406.11944")
@dataclass(frozen=True)
class Transcoder(Preset):
    """Predicts the states of another site (an MLP's output from its input) through rectified codes with a price.

    sparsity: the price, as in relu_l1; target_l0: active latents per row that the price is steered to (None: it stays).
    """

    needs = frozenset({"y"})
    sparsity: float = 0.2
    target_l0: float | None = None

    def build(self, width: int, generator: torch.Generator, width_out: int | None = None) -> Autoencoder:
        """An untrained dictionary."""
        return linear_transcoder(
            width, Threshold(self.n_latents), generator, n_latents=self.n_latents, width_out=width_out, row_norm=0.1
        )

    def objectives(self) -> tuple[Objective, ...]:
        """Reconstruction of the target and the price."""
        return Reconstruction(), L1(self.sparsity)

    def maintainers(self) -> tuple[Maintainer, ...]:
        """With a target, the steering of the price."""
        return () if self.target_l0 is None else (SparsityTarget(self.target_l0),)
