"""NMF: non-negative parts of non-negative (or shifted) states.

Source: Lee and Seung 1999; fitted a batch at a time (classic/online_nmf: Mairal et al. 2010). x - shift ~ z W with z >=
0, W >= 0; shift is the smallest value of each coordinate over the fitted rows where that is negative, else 0.
Promises: codes and atoms are not negative; the code of a state is its non-negative least squares solution.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from overtone.dictionaries.classic.nonnegative import NonNegative
from overtone.dictionaries.classic.online_nmf import online_nmf
from overtone.dictionaries.preset import Preset, preset


@preset("nmf", role="baseline", capabilities=NonNegative.CAN)
@dataclass(frozen=True)
class NMF(Preset):
    """Non-negative matrix factorisation of the rows.

    iterations: rounds, each of up to 1024 rows.
    """

    whole = True
    iterations: int = 200

    def fitted(self, rows: Float[Tensor, "rows width"], generator: torch.Generator) -> NonNegative:
        """The parts of a matrix of states."""
        shift = rows.amin(0).clamp_max(0)
        above = rows - shift
        size = above.square().mean().sqrt().clamp_min(1e-30)
        return NonNegative.of(online_nmf(above / size, self.n_latents, generator, rounds=self.iterations), shift)
