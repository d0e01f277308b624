"""Merging: none for the true atoms, all for sums of child and parent."""

import pytest
import torch

from overtone.core.errors import DataError
from overtone.data.synthetic import plant_tree
from overtone.evaluate.merging import merging


def test_true_atoms_merge_nothing_and_sums_of_child_and_parent_do():
    tree = plant_tree(3, 3, 8, 20, mixing=0.0895, seed=0)
    assert merging(tree.atoms, tree) < 1e-5
    children = tree.parent >= 0
    merged = tree.atoms.clone()
    merged[children] += tree.atoms[tree.parent[children]]
    assert merging(merged, tree) == pytest.approx(2**-0.5, abs=1e-5)
    order = torch.randperm(20, generator=torch.Generator().manual_seed(0))
    assert merging(-merged[order], tree) == pytest.approx(2**-0.5, abs=1e-5), "order and sign do not matter"


def test_without_families_there_is_nothing_to_merge():
    with pytest.raises(DataError, match="no children"):
        merging(torch.eye(4), plant_tree(0, 3, 4, 4, seed=0))
