"""Coherence: orthogonal atoms have none, copies have all, and only atoms that are active together count together."""

import numpy as np
import pytest

from overtone.core.errors import DataError, SettingError
from overtone.evaluate.coherence import babel, selected_coherence

EYE = np.eye(6)


def test_orthogonal_atoms_have_none_and_signs_do_not_matter():
    assert babel(EYE, 3) == 0
    doubled = np.concatenate([EYE, -2 * EYE])
    assert babel(doubled, 1) == pytest.approx(1) and babel(doubled, 4) == pytest.approx(1)


def test_it_is_a_sum_over_the_most_similar_others_and_grows_with_their_number():
    atoms = np.random.default_rng(0).normal(size=(20, 5))
    values = [babel(atoms, m) for m in (1, 3, 19)]
    assert values == sorted(values) and values[0] <= 1 and values[2] <= 19
    unit = atoms / np.linalg.norm(atoms, axis=1, keepdims=True)
    assert values[2] == pytest.approx((np.abs(unit @ unit.T) - np.eye(20)).sum(1).max())
    with pytest.raises(SettingError, match="use 1 to 19"):
        babel(atoms, 20)


def test_only_atoms_that_are_active_together_overlap():
    atoms = np.concatenate([EYE[:3], EYE[:3]])  # atom i + 3 is a copy of atom i
    together = np.zeros((2, 6))
    together[0, [0, 3]] = together[1, [0, 1]] = 1.0
    assert selected_coherence(together, atoms) == pytest.approx(0.5)
    assert selected_coherence(together[1:], atoms) == 0
    with pytest.raises(DataError, match="two active latents"):
        selected_coherence(np.diag(np.ones(6)), atoms)
