"""A control: atoms that are random and stay so, with an encoder trained to use them as well as it can.

What a trained dictionary shows and this one does not is due to its atoms. Not a method; no source.
As TopK, but W_dec is a frozen matrix of random unit rows; W_enc, b_enc and b_dec are trained.
Promises: as TopK; atoms do not depend on the data.
"""

from dataclasses import dataclass

import torch

from overtone.dictionaries.autoencoder import Autoencoder, linear_autoencoder
from overtone.dictionaries.objectives.base import Objective
from overtone.dictionaries.objectives.reconstruction import Reconstruction
from overtone.dictionaries.preset import Preset, preset
from overtone.dictionaries.selectors.rank import Rank


@preset("random_directions", role="control")
@dataclass(frozen=True)
class RandomDirections(Preset):
    """Frozen random atoms with a trained encoder: the control for everything that is said of learned atoms.

    k: active latents per row.
    """

    k: int = 32

    def build(self, width: int, generator: torch.Generator) -> Autoencoder:
        """An untrained dictionary."""
        selection = Rank("row", self.k)
        return linear_autoencoder(width, selection, generator, n_latents=self.n_latents, frozen_decoder=True)

    def objectives(self) -> tuple[Objective, ...]:
        """Reconstruction."""
        return (Reconstruction(),)
