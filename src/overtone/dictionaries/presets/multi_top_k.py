"""Multi-TopK: TopK that also reconstructs from more latents, so that k can be raised after training.

Source: Gao et al. 2024, "Scaling and evaluating sparse autoencoders", arXiv 2406.04093, section 5.3.
As TopK (presets/top_k), with loss L(k) + weight L(times k) + aux_weight AuxK; L(n) is the unexplained share with the n
largest pre-activations of each row.
Deviations: as TopK.
Promises: as TopK; with weight = 0 it is TopK.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from overtone.dictionaries.autoencoder import Autoencoder, linear_autoencoder
from overtone.dictionaries.maintainers.base import Maintainer
from overtone.dictionaries.maintainers.unit_rows import UnitRows
from overtone.dictionaries.objectives.auxiliary import ResidualAux
from overtone.dictionaries.objectives.base import Objective, StepView
from overtone.dictionaries.objectives.reconstruction import Reconstruction, unexplained
from overtone.dictionaries.preset import Preset, preset
from overtone.dictionaries.selectors.rank import Rank


@dataclass(frozen=True)
class WithMore(Objective):
    """weight x the unexplained share of a reconstruction from the `active` best latents of each row."""

    active: int
    weight: float
    sliceable = True

    def __call__(self, step: StepView) -> Tensor:
        """The term, 0 or more."""
        model = step.dictionary
        every = torch.arange(model.slice.n_latents, device=step.x.device)
        x_hat = step.decoded_from(every, self.active) + model.decoder.centre()
        return self.weight * unexplained(x_hat, step)


@preset("multi_top_k", paper="Scaling and evaluating sparse autoencoders, arXiv 2406.04093", recovers=True)
@dataclass(frozen=True)
class MultiTopK(Preset):
    """Keep the k largest pre-activations of each row; train for `times` as many too.

    k: active latents per row; times, weight: the second term of the loss; aux_weight: as in TopK.
    """

    k: int = 32
    times: int = 4
    weight: float = 1 / 8
    aux_weight: float = 1 / 32

    def build(self, width: int, generator: torch.Generator) -> Autoencoder:
        """An untrained dictionary."""
        return linear_autoencoder(width, Rank("row", self.k), generator, n_latents=self.n_latents)

    def objectives(self) -> tuple[Objective, ...]:
        """Reconstruction from k latents and from more, and AuxK."""
        more = min(self.times * self.k, self.n_latents)
        return Reconstruction(), WithMore(more, self.weight), ResidualAux(self.aux_weight)

    def maintainers(self) -> tuple[Maintainer, ...]:
        """Unit rows."""
        return (UnitRows(),)
