"""Do the members of a family have something in common? Agreement of siblings, against shuffled families."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from overtone.core.errors import DataError, ShapeError


@dataclass(frozen=True)
class FamilyAgreement:
    """share: of sibling pairs with the same label, in [0, 1]; chance: what 95 % of shuffled families stay below;
    n_pairs: pairs of siblings."""

    share: float
    chance: float
    n_pairs: int


def family_agreement(
    parents: Sequence[int] | np.ndarray, labels: Sequence[Any], *, rng: np.random.Generator, draws: int = 500
) -> FamilyAgreement:
    """How often two children of one parent have the same label; families are shuffled with their sizes kept.

    parents, labels: one entry per child. Raises ShapeError if they differ in length, DataError if no parent has two
    children.
    """
    family, names = np.asarray(parents), np.asarray(list(labels))
    if len(family) != len(names):
        raise ShapeError(f"{len(family)} parents and {len(names)} labels: give one of each per child.")
    same = names[:, None] == names

    def share(of: np.ndarray) -> float:
        siblings = np.triu(of[:, None] == of, 1)
        return float(same[siblings].mean())

    n_pairs = int(np.triu(family[:, None] == family, 1).sum())
    if not n_pairs:
        raise DataError("no parent has two children, so nobody has a sibling. Use fewer parents.")
    shuffled = [share(rng.permutation(family)) for _ in range(draws)]
    return FamilyAgreement(share(family), float(np.quantile(shuffled, 0.95)), n_pairs)
