"""Clusters: planted groups are found without labels, named by their words, and called unstable when they are chance."""

import numpy as np
import pytest

from overtone.core.errors import DataError, SettingError
from overtone.interpret.clusters import cluster_atoms, describe_clusters

KINDS = ("check", "leave", "switch", "finish", "begin")
SAYINGS = ("wait , is that right", "scrap that , back again", "try another way", "so the answer is", "we want to make")


def planted(seed=0, n=600, per_kind=6, width=24, noise=0.12):
    """Five groups of atoms; a row of kind k has two atoms of group k active. Returns atoms, codes, documents, texts."""
    rng = np.random.default_rng(seed)
    centres = np.repeat(np.eye(len(KINDS), width), per_kind, axis=0)
    atoms = centres + noise * rng.normal(size=centres.shape)
    kind = rng.integers(0, len(KINDS), n)
    codes = np.zeros((n, len(atoms)))
    for i, k in enumerate(kind):
        codes[i, k * per_kind + rng.choice(per_kind, 2, replace=False)] = rng.uniform(1, 2, 2)
    texts = [f"{SAYINGS[k]} {rng.integers(99)} and {rng.integers(99)}" for k in kind]
    return atoms, codes, np.arange(n) // 6, texts


def run(atoms, codes, documents, **options):
    return cluster_atoms(atoms, codes, documents, rng=np.random.default_rng(0), **{"bootstraps": 5, **options})


@pytest.mark.parametrize("coactivation", [0.0, 0.5, 1.0])
def test_planted_groups_are_found_in_number_and_members(coactivation):
    atoms, codes, documents, _ = planted()
    found = run(atoms, codes, documents, coactivation=coactivation)
    assert {frozenset(c.members) for c in found.clusters} == {frozenset(range(6 * k, 6 * k + 6)) for k in range(5)}
    assert max(found.curve, key=found.curve.get) == 5
    assert all(c.stability == 1 and c.silhouette > 0.1 for c in found.clusters)


def test_labels_and_clusters_say_the_same():
    atoms, codes, documents, _ = planted()
    found = run(atoms, codes, documents)
    assert all((found.labels[list(c.members)] == c.index).all() for c in found.clusters)


def test_clusters_of_chance_are_unstable_and_planted_ones_are_not():
    rng = np.random.default_rng(1)
    codes = (rng.random((300, 30)) < 0.1) * rng.random((300, 30))
    chance = run(rng.normal(size=(30, 24)), codes, np.arange(300) // 6, coactivation=1.0)
    assert np.mean([c.stability for c in chance.clusters]) < 0.6


def test_rare_and_dead_latents_are_left_out():
    atoms, codes, documents, _ = planted()
    codes[:, 3] = 0
    codes[10:, 8] = 0
    atoms[14] = 0
    found = run(atoms, codes, documents)
    assert found.labels[[3, 8, 14]].tolist() == [-1, -1, -1] and (found.labels >= 0).sum() == 27


def test_the_story_of_a_cluster_names_its_words_rows_and_share():
    atoms, codes, documents, texts = planted()
    found = run(atoms, codes, documents)
    stories = describe_clusters(found, codes, texts)
    assert sum(s.share for s in stories) == pytest.approx(1)
    for story in stories:
        kind = story.cluster.members[0] // 6
        assert all(texts[i].startswith(SAYINGS[kind]) for i in story.rows)
        assert set(story.name.split(", ")) <= set(SAYINGS[kind].split())
    assert story.rows == tuple(sorted(story.rows, key=lambda i: (-codes[i, list(story.cluster.members)].sum(), i)))


def test_a_cluster_without_words_is_called_by_its_number():
    atoms, codes, documents, _ = planted()
    stories = describe_clusters(run(atoms, codes, documents), codes, ["1 2 3"] * 600)
    assert stories[0].name == "cluster 0"


def test_mistakes_are_named():
    atoms, codes, documents, _ = planted()
    with pytest.raises(DataError, match="only 0 latents are active in 9999 rows"):
        run(atoms, codes, documents, n_min=9999)
    with pytest.raises(SettingError, match="coactivation=2"):
        run(atoms, codes, documents, coactivation=2)
