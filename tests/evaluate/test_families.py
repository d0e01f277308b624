"""Agreement of siblings: one label per family is perfect, labels without families are what shuffling gives."""

import numpy as np
import pytest

from overtone.core.errors import DataError, ShapeError
from overtone.evaluate.families import family_agreement


def rng():
    return np.random.default_rng(0)


def test_families_of_one_label_agree_and_random_ones_do_not():
    parents = np.repeat(np.arange(6), 5)
    told = family_agreement(parents, [f"kind {p % 3}" for p in parents], rng=rng())
    assert told.share == 1 > told.chance and told.n_pairs == 6 * 10
    over = [
        family_agreement(parents, r.integers(3, size=30), rng=r, draws=100)
        for r in map(np.random.default_rng, range(60))
    ]
    assert np.mean([o.share > o.chance for o in over]) < 0.2, "labels without families pass one time in twenty"


def test_what_says_nothing_is_refused():
    with pytest.raises(DataError, match="nobody has a sibling"):
        family_agreement([0, 1, 2], "aab", rng=rng())
    with pytest.raises(ShapeError):
        family_agreement([0, 1], "a", rng=rng())
