"""Hierarchy of features: children that share a parent's neurons come together under one parent."""

import math

import pytest
import torch

from overtone.core.errors import CapabilityError, SettingError
from overtone.dictionaries.classic.feature_tree import feature_tree, least_squares_on
from overtone.dictionaries.classic.nonnegative import NonNegative
from overtone.dictionaries.classic.semi_nmf import winner_take_all
from overtone.dictionaries.presets.top_k import TopK

PARENTS, CHILDREN, NEURONS = 3, 4, 90


@pytest.fixture(scope="module")
def planted():
    """Features made of their parent's 8 neurons and 3 of their own, and rows made of features."""
    draw = torch.Generator().manual_seed(0)
    features = torch.zeros(PARENTS * CHILDREN, NEURONS)
    for i in range(PARENTS * CHILDREN):
        features[i, 8 * (i // CHILDREN) : 8 * (i // CHILDREN) + 8] = 0.5 + torch.rand(8, generator=draw)
        features[i, 30 + 3 * i : 33 + 3 * i] = torch.randn(3, generator=draw).sign()
    codes = torch.rand(300, len(features), generator=draw) * (torch.rand(300, len(features), generator=draw) < 0.2)
    codes = codes * torch.linspace(0.3, 2, len(features))  # how often and how much is not what features alone tell
    return codes @ features, NonNegative.of(features)


@pytest.fixture(scope="module")
def tree(planted):
    x, dictionary = planted
    draw = torch.Generator().manual_seed(0)
    return feature_tree(x, dictionary, [PARENTS, 1], draw, winners=8 / NEURONS, iterations=300, tuning=100)


def test_children_of_one_parent_come_together(tree):
    families = tree.parents(0).view(PARENTS, CHILDREN)
    assert (families == families[:, :1]).all() and len(set(families[:, 0].tolist())) == PARENTS
    shared = tree.features[1][families[:, 0]]
    assert all((row[8 * p : 8 * p + 8] != 0).all() for p, row in enumerate(shared))


def test_levels_have_the_sizes_asked_for_and_keep_their_promises(tree, planted):
    assert [len(f) for f in tree.features] == [PARENTS * CHILDREN, PARENTS, 1]
    assert all((w >= 0).all() for w in tree.weights)
    assert all((f != 0).sum(1).max() <= math.ceil(8 / NEURONS * NEURONS) for f in tree.features[1:])
    assert (tree.parents(1) == 0).all()
    assert torch.equal(tree.features[0], planted[1].weight)


def crowded(seed):
    """Rows in which features of both signs are active together, and the features."""
    draw = torch.Generator().manual_seed(seed)
    features = winner_take_all(torch.randn(12, 60, generator=draw), 0.3)
    return torch.rand(300, 12, generator=draw) @ features, NonNegative.of(features)


def test_levels_are_solved_for_on_the_rows_and_tuned_together():
    """Factorised features alone miss more than nothing would; solving for them and tuning each gain, by medians."""
    missed = torch.tensor([
        feature_tree(*crowded(seed), [4, 2], torch.Generator().manual_seed(0), winners=0.3, iterations=200).missed
        for seed in range(3)
    ])  # fmt: skip
    factorised, solved, tuned = missed.T
    assert (solved < 1).all() and (solved / factorised).median() < 0.8 and (tuned / solved).median() < 0.99


def test_the_unit_of_the_rows_changes_nothing():
    x, dictionary = crowded(0)
    options = {"winners": 0.3, "iterations": 100, "restarts": 1, "tuning": 100}
    one, other = (feature_tree(s * x, dictionary, [4, 2], torch.Generator().manual_seed(0), **options)
                  for s in (1, 100))  # fmt: skip
    assert other.missed == pytest.approx(one.missed, rel=1e-6)
    for a, b in zip((*one.features, *one.weights), (*other.features, *other.weights), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-5)


def test_features_on_a_support_are_those_of_least_error():
    draw = torch.Generator().manual_seed(0)
    codes, x = (torch.rand(30, n, generator=draw, dtype=torch.float64) for n in (4, 7))
    support = torch.rand(4, 7, generator=draw) < 0.6
    found = least_squares_on(support, codes, x)
    assert (found[~support] == 0).all()
    for j, on in enumerate(support.T):
        torch.testing.assert_close(
            found[on, j], torch.linalg.lstsq(codes[:, on], x[:, j]).solution, rtol=1e-4, atol=1e-6
        )


def test_levels_that_do_not_shrink_are_refused(planted):
    with pytest.raises(SettingError, match="smaller than the one below"):
        feature_tree(*planted, [12], torch.Generator())


def test_other_dictionaries_have_no_such_tree(generator):
    other = TopK(8, k=2).build(4, generator)
    with pytest.raises(CapabilityError, match="Fit an snmf or nmf"):
        feature_tree(torch.ones(5, 4), other, [2], generator)
