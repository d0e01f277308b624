"""Which latents interact in a nonlinear decoder, and whether that is more than being active together.

Source: PolySAE, arXiv 2602.01322, whose interaction strengths hardly follow co-occurrence while covariances of codes
do.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from overtone.core.errors import DataError
from overtone.dictionaries.codes import SparseCodes
from overtone.dictionaries.dictionary import Dictionary
from overtone.dictionaries.interacting import polynomial_of

_PAIRS = 2**18  # pairs whose vectors are in memory at a time


@dataclass(frozen=True, eq=False)
class Interactions:
    """All pairs of latents that were active in at least `least` rows. first, second: (pairs,) int64 latents, first <
    second; strength: (pairs,) length of what the product of their values adds, in states' units; together: (pairs,)
    share of the rows in which both are active; covariance: (pairs,) of their values."""

    first: Tensor
    second: Tensor
    strength: Tensor
    together: Tensor
    covariance: Tensor

    @property
    def strength_with_together(self) -> float:
        """Pearson correlation of strength and co-occurrence over pairs, in [-1, 1]; NaN if one does not vary."""
        return _correlation(self.strength, self.together)

    @property
    def covariance_with_together(self) -> float:
        """The same for covariances: what a linear dictionary would read as interaction."""
        return _correlation(self.covariance, self.together)

    def strongest(self, n: int) -> list[tuple[int, int, float]]:
        """The n pairs of largest strength: (latent, latent, strength)."""
        best = self.strength.topk(min(n, len(self.strength))).indices.tolist()
        return [(int(self.first[p]), int(self.second[p]), float(self.strength[p])) for p in best]


def interactions(dictionary: Dictionary, codes: SparseCodes, *, least: int = 1) -> Interactions:
    """Interaction strengths of a dictionary with a polynomial decoder beside co-occurrence in some codes.

    Time and memory grow with the square of the number of latents in use. Raises CapabilityError for another decoder,
    DataError if fewer than two latents are active in `least` rows.
    """
    decoder, unit = polynomial_of(dictionary)
    dense = dictionary.checked_codes(codes).dense().detach().double()
    active = (dense != 0).double()
    used = (active.sum(0) >= max(least, 1)).nonzero().view(-1)
    if len(used) < 2:
        raise DataError(f"{len(used)} latents are active in {least} rows: a pair needs two. Encode more rows.")
    i, j = torch.triu_indices(len(used), len(used), offset=1)
    dense, active = dense[:, used], active[:, used]
    covariance = torch.cov(dense.T)[i, j]
    together = (active.T @ active)[i, j] / len(dense)
    first, second = used[i], used[j]
    parts = zip(first.split(_PAIRS), second.split(_PAIRS), strict=True)
    with torch.no_grad():
        strength = torch.cat([decoder.bindings(*part).norm(dim=1) for part in parts]) * unit
    return Interactions(first, second, strength, together, covariance)


def _correlation(a: Tensor, b: Tensor) -> float:
    if len(a) < 2 or float(a.std()) == 0 or float(b.std()) == 0:
        return float("nan")
    return float(np.corrcoef(a.double().cpu().numpy(), b.double().cpu().numpy())[0, 1])
