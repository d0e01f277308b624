"""Skip transcoder: a transcoder whose code need not explain what a linear map explains.

Source: Paulo, Shabalin, Belrose 2025, "Transcoders beat sparse autoencoders for interpretability", arXiv 2501.18823.
x: input of an MLP, (rows, width); y: its output, (rows, width_out). z = ReLU(TopK_k(x W_enc^T + b_enc));
y_hat = z W_dec + b_dec + x W_skip^T. Loss: ||y - y_hat||^2 / var(y) + aux_weight * AuxK. W_dec starts at 0, b_enc so
that the mean of x has u = 0; no constraint on row norms. With `skip=False` it is the paper's TopK transcoder.
Deviations: 1. AuxK as in `top_k`; 2. W_skip starts at the linear map that predicts y best, not at 0: nothing in the
loss takes back what a code has learned of it; 3. as in `crosscoder`, 3.
Promises: at most k active latents per row, none negative, rows independent; decoding needs x; atoms lie in the space of
y.
"""

from dataclasses import dataclass

import torch

from overtone.dictionaries.autoencoder import Autoencoder
from overtone.dictionaries.objectives.auxiliary import ResidualAux
from overtone.dictionaries.objectives.base import Objective
from overtone.dictionaries.objectives.reconstruction import Reconstruction
from overtone.dictionaries.preset import Preset, preset
from overtone.dictionaries.selectors.rank import Rank
from overtone.dictionaries.transcoding import linear_transcoder


@preset("skip_transcoder", paper="Transcoders beat sparse autoencoders for interpretability, arXiv 2501.18823")
@dataclass(frozen=True)
class SkipTranscoder(Preset):
    """Predicts the states of another site through the k largest pre-activations, beside a linear map of the input.

    k: active latents per row; skip: with the linear map; aux_weight, k_aux: as in TopK.
    """

    needs = frozenset({"y"})
    k: int = 32
    skip: bool = True
    aux_weight: float = 1 / 32
    k_aux: int | None = None

    def build(self, width: int, generator: torch.Generator, width_out: int | None = None) -> Autoencoder:
        """An untrained dictionary."""
        return linear_transcoder(
            width, Rank("row", self.k), generator, n_latents=self.n_latents, width_out=width_out, skip=self.skip
        )

    def objectives(self) -> tuple[Objective, ...]:
        """Reconstruction of the target and AuxK."""
        return Reconstruction(), ResidualAux(self.aux_weight, self.k_aux)
