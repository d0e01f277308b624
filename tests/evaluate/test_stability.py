"""Matching two dictionaries one to one."""

import numpy as np
import pytest

from overtone.evaluate.stability import agreement


def test_a_shuffled_dictionary_matches_itself_and_the_matching_is_the_shuffle():
    rng = np.random.default_rng(0)
    atoms = rng.normal(size=(20, 16))
    order = rng.permutation(20)
    found = agreement(atoms, atoms[order] * 2)
    assert found.mean == pytest.approx(1) and found.share == 1
    assert [order[j] for j in found.second] == list(found.first)


def test_the_matching_is_one_to_one_even_where_one_atom_is_nearest_to_all():
    first = np.array([[1.0, 0], [1.0, 0.1]])
    second = np.array([[1.0, 0.05], [0, 1.0]])
    found = agreement(first, second)
    assert sorted(found.second) == [0, 1] and found.share == 0.5


def test_signs_count_unless_told_otherwise_and_sizes_may_differ():
    atoms = np.eye(4)
    assert agreement(atoms, -atoms[:3], signed=False).mean == 1
    assert agreement(atoms, -atoms[:3]).mean == 0
    assert len(agreement(atoms, -atoms[:3]).first) == 3
