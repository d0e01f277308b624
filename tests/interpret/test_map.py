"""The map: groups stay together, lengths do not matter, equal seeds agree."""

import numpy as np
import pytest

from overtone.core.errors import DataError, SettingError
from overtone.interpret.map import map_atoms


def atoms():
    rng = np.random.default_rng(0)
    centres = np.repeat(np.eye(3, 16), 20, axis=0)
    return centres + 0.1 * rng.normal(size=centres.shape)


def test_groups_of_directions_are_groups_on_the_map():
    found = map_atoms(atoms(), method="pca")
    assert found.xy.shape == (60, 2) and np.abs(found.xy).max() == pytest.approx(1) and found.explained > 0.7
    centres = found.xy.reshape(3, 20, 2).mean(axis=1)
    within = np.linalg.norm(found.xy.reshape(3, 20, 2) - centres[:, None], axis=2).max()
    between = min(np.linalg.norm(centres[i] - centres[j]) for i, j in [(0, 1), (0, 2), (1, 2)])
    assert between > 3 * within


def test_only_directions_count_and_the_map_is_repeatable():
    scale = np.random.default_rng(1).uniform(0.1, 10, (60, 1))
    one, two = map_atoms(atoms(), method="pca"), map_atoms(atoms() * scale, method="pca")
    np.testing.assert_allclose(one.xy, two.xy, atol=1e-9)


def test_flat_clouds_have_a_map():
    found = map_atoms(np.array([[1.0], [2.0], [-1.0]]), method="pca")
    assert found.xy[:, 1].tolist() == [0, 0, 0] and found.xy[0, 0] == found.xy[1, 0] == -found.xy[2, 0]


def test_umap_where_it_is_installed():
    pytest.importorskip("umap", reason="umap-learn is an extra: overtone[map]")
    one, two = map_atoms(atoms(), seed=3), map_atoms(atoms(), seed=3)
    assert one.method == "umap"
    np.testing.assert_array_equal(one.xy, two.xy)
    centres = one.xy.reshape(3, 20, 2).mean(axis=1)
    assert min(np.linalg.norm(centres[i] - centres[j]) for i, j in [(0, 1), (0, 2), (1, 2)]) > 0.2


def test_umap_asked_for_but_absent_is_said(monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, "umap", None)
    with pytest.raises(SettingError, match="install overtone\\[map\\]"):
        map_atoms(atoms(), method="umap")
    assert map_atoms(atoms()).method == "pca"


def test_mistakes_are_named():
    with pytest.raises(DataError, match="norm 0"):
        map_atoms(np.zeros((5, 3)))
    with pytest.raises(SettingError, match="'tsne' is not a kind"):
        map_atoms(atoms(), method="tsne")
