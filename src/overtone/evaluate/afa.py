"""Quasi-orthogonality: is a code as long as the state it stands for?

If the active atoms d_i were orthogonal unit vectors and x - c = sum_i z_i d_i, then ||z|| = ||x - c||. With cosines of
at most eps between them, | ||x - c||^2 - ||z||^2 | <= eps sum_{i != j} |z_i z_j|, so every row bounds from below the
eps that an explanation by this code needs. Source: Lee et al. 2025, arXiv 2503.24277 (the evaluation called AFA there).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from overtone.core.errors import CapabilityError

if TYPE_CHECKING:
    from torch import Tensor

    from overtone.dictionaries.codes import SparseCodes
    from overtone.dictionaries.dictionary import Dictionary


@dataclass(frozen=True, eq=False)
class QuasiOrthogonality:
    """How the length of a code compares with that of its state, by row.

    code, state: (rows,) ||z|| (each value times the length of its atom) and ||x - c||, in the states' units, c the
    reconstruction of an empty code; epsilon: (rows,) the lower bound, 0 or more, NaN where fewer than two latents are
    active; active: (rows,) how many are.
    """

    code: np.ndarray
    state: np.ndarray
    epsilon: np.ndarray
    active: np.ndarray

    @property
    def gap(self) -> float:
        """Median over rows of | ||z|| - ||x - c|| | / ||x - c||: 0 where lengths agree."""
        moving = self.state > 0
        return float(np.median(np.abs(self.code - self.state)[moving] / self.state[moving]))

    @property
    def excess(self) -> float:
        """Median over rows of ||z|| / ||x - c||: below 1 the code is too short (too few latents), above 1 too long."""
        moving = self.state > 0
        return float(np.median(self.code[moving] / self.state[moving]))

    @property
    def bound(self) -> float:
        """Median of the lower bound over the rows that have one; NaN if none has."""
        known = self.epsilon[np.isfinite(self.epsilon)]
        return float(np.median(known)) if len(known) else float("nan")


def quasi_orthogonality(dictionary: Dictionary, x: Tensor, codes: SparseCodes | None = None) -> QuasiOrthogonality:
    """The comparison for the codes that a dictionary gives states x (rows, width); codes: these, where they are known.

    Raises CapabilityError if its decoder is not linear or adds something that depends on the state, or if it predicts
    other states than it reads.
    """
    import torch

    from overtone.dictionaries.codes import SparseCodes as Codes

    can = dictionary.capabilities
    if not can.linear_decoder or can.decode_needs_input or can.predicts_other_states:
        raise CapabilityError(
            "lengths of codes and states compare where the states that are read are written as a sum of atoms and a "
            "constant, which this dictionary does not do. Use one that does, such as top_k (its capabilities: "
            "linear_decoder, not decode_needs_input, not predicts_other_states)."
        )
    codes = dictionary.encode(x) if codes is None else codes
    none = codes.values.new_zeros(1, 1)
    centre = dictionary.decode(Codes(none, none.long(), dictionary.n_latents))[0]
    parts = codes.values.double() * dictionary.atom_norms().double()[codes.indices]
    length, total = parts.square().sum(1), parts.abs().sum(1).square()
    state = (x.to(centre.device).double() - centre.double()).square().sum(1)
    pairs = total - length
    epsilon = torch.where(codes.counts() > 1, (state - length).abs() / pairs, torch.nan)
    found = length.sqrt(), state.sqrt(), epsilon, codes.counts()
    return QuasiOrthogonality(*(part.detach().cpu().numpy() for part in found))


def coherence(dictionary: Dictionary) -> float:
    """Largest |cos| between two different atoms, in [0, 1]: the eps that the dictionary really has. 0 for one atom.

    Memory grows with the square of the number of atoms. Raises CapabilityError without atoms.
    """
    atoms = dictionary.atoms().double()
    return float((atoms @ atoms.T).fill_diagonal_(0).abs().max())
