"""Planted trees: what is drawn is what the description says."""

import pytest
import torch

from overtone.core.errors import SettingError
from overtone.data.hierarchical import merging, plant_tree


def test_all_features_are_orthogonal_but_for_siblings():
    tree = plant_tree(seed=3)
    cosines = tree.atoms @ tree.atoms.T
    sibling = torch.zeros(20, 20, dtype=torch.bool)
    for p in range(3):
        sibling[3 + 3 * p : 6 + 3 * p, 3 + 3 * p : 6 + 3 * p] = True
    torch.testing.assert_close(cosines.diagonal(), torch.ones(20))
    assert cosines[~sibling & ~torch.eye(20).bool()].abs().max() < 1e-5
    assert 0.05 < cosines[3, 4] < 0.25


def test_each_active_parent_brings_exactly_one_child():
    tree = plant_tree(mixing=0.0, seed=1)
    x = tree.sample(4000, seed=0)
    active = (x @ tree.atoms.T) > 1e-3
    parents, children = active[:, :3], active[:, 3:12].view(-1, 3, 3)
    assert torch.equal(children.sum(2), parents.int().long())
    assert active.sum(1).float().mean() == pytest.approx(tree.mean_active, rel=0.05)
    assert (x @ tree.atoms.T)[active].mean() == pytest.approx(1.5, abs=0.02)


def test_true_atoms_merge_nothing_and_sums_of_child_and_parent_do():
    tree = plant_tree(seed=0)
    assert merging(tree.atoms, tree) < 1e-5
    merged = torch.nn.functional.normalize(tree.children + tree.parents[:, None], dim=2).flatten(0, 1)
    assert merging(merged, tree) > 0.6


def test_a_tree_without_room_is_refused():
    with pytest.raises(SettingError, match="21 features, in width 20"):
        plant_tree(n_solos=9)
