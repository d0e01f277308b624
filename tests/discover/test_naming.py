"""Names for what was found: from labels of `fit` and `select` only, scored elsewhere, with contexts that are there."""

from dataclasses import replace

import numpy as np
import pytest

from overtone.core.sites import Site
from overtone.discover.decompose import decompose
from overtone.discover.material import FIT, SELECT, TEST, Material
from overtone.discover.naming import Naming
from overtone.evaluate.recognition import best_latents


@pytest.fixture(scope="module")
def naming(found):
    named = decompose(found.run, found.material, found.settings, found.settings.naming, bases=True)
    return Naming(found.material, named, found.settings.seed)


def test_recognition_stands_beside_every_basis(naming, found):
    rows = naming.recognition()
    assert {r.split for r in rows} == {"problems"}  # nobody can write other wording for this subject
    for row in rows:
        assert row.behaviour in found.material.behaviours and 0 <= row.auroc.value <= 1
        assert set(row.controls) == {"PCA axes", "random decoder", "shuffled labels"}
        assert row.latent < row.n_latents == naming.found.dictionaries[Site.parse(row.site)].n_latents


def test_a_size_that_competes_is_taken_where_it_recognises_better_on_select(naming, found):
    """A dictionary of two latents beside the usual one: for every behaviour, the one in which select finds the best
    latent."""
    small = decompose(
        found.run, found.material, found.settings, found.settings.naming.replaced(expansion=0.0625), bases=True
    )
    both = Naming(found.material, naming.found, naming.seed, (naming.found, small))
    codes = both._bases()[""]
    assert {n for _, n in codes} == {16, 2}
    rows = both.recognition()
    selected = {
        place: best_latents(both._part(c, SELECT), both._part(c, TEST), rng=np.random.default_rng(0))
        for place, c in codes.items()
    }
    for row in rows:
        best = max(selected, key=lambda place: selected[place][row.behaviour].selected)
        assert (row.site, row.n_latents) == (str(best[0]), best[1])
    assert rows


def test_held_out_labels_decide_nothing_but_the_score(naming, found):
    """With the names of test steps turned round, the same latents are chosen; only what they score changes."""
    other = _relabelled(found.material)
    turned = Naming(other, _with_labels(naming.found, other), naming.seed)
    assert turned.best_site == naming.best_site
    pairs = list(zip(naming.recognition(), turned.recognition(), strict=True))
    assert [(a.behaviour, a.latent) for a, _ in pairs] == [(b.behaviour, b.latent) for _, b in pairs]
    assert any(a.auroc.value != b.auroc.value for a, b in pairs)
    for site, p in naming.profiles.items():
        np.testing.assert_array_equal(p.share, turned.profiles[site].share)


def _relabelled(material: Material) -> Material:
    """The same material with reflection and execution exchanged in the test split."""
    other = Material(material.subject, material.sites, material.traces, material.outcomes, material.anchors)
    swap = {"reflection": "execution", "execution": "reflection"}
    other.__dict__["labels"] = {
        t.document: [swap.get(x, x) for x in material.labels[t.document]]
        if t.meta["split"] not in (FIT, SELECT)
        else material.labels[t.document]
        for t in material.traces
    }
    return other


def _with_labels(found, material: Material):
    at = zip(found.rows.where.document.tolist(), found.rows.where.step.tolist(), strict=True)
    labels = tuple(material.labels[doc][step] for doc, step in at)
    return replace(found, rows=replace(found.rows, labels=labels))


def test_contexts_are_steps_in_which_the_latent_is_active(naming, found):
    site, texts = naming.best_site, naming.texts
    codes = naming.codes[site]
    latent = int(np.argmax(np.diff(codes.indptr)))
    shown = naming.contexts(site, latent, n=3)
    column = codes[:, [latent]].toarray()[:, 0]
    assert shown and shown[0].activation == pytest.approx(float(column[np.argmax(np.abs(column))]))
    for context in shown:
        rows = [i for i, t in enumerate(texts) if t == context.step]
        assert any(column[i] == pytest.approx(context.activation) for i in rows)


def test_cards_are_pure_latents_with_shares_that_add_up(naming, found):
    for card in naming.cards():
        assert card.label in found.material.behaviours and card.purity >= 0.5
        assert sum(card.profile.values()) == pytest.approx(1)
        assert max(card.profile, key=card.profile.get) == card.label


def test_a_map_has_one_point_for_each_named_atom(naming):
    points = naming.atom_map({}).points
    named = sum(label is not None for p in naming.profiles.values() for label in p.labels)
    assert len(points) == (named if named >= 3 else 0)
    assert all(abs(p.x) <= 1.001 and abs(p.y) <= 1.001 for p in points)


def test_every_response_is_either_short_or_long(naming, found):
    result = naming.length_structure()
    assert [g.name for g in result.groups] == ["short", "long"]
    assert sum(g.n_traces for g in result.groups) == len(found.material.traces)
    assert result.groups[0].tokens < result.groups[1].tokens
    assert all(sum(g.shares.values()) <= 1 + 1e-9 for g in result.groups)


def test_facts_are_measured_on_held_out_steps(naming):
    for fact in naming.facts("top_k"):
        assert fact.n_rows == len(naming.found.rows.index("test")) and fact.fvu > 0
