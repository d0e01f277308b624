"""Candidate vectors: where they live and what they are made of."""

import pytest
import torch

from overtone.core.errors import DataError
from overtone.core.sites import Site
from overtone.directions.direction import unit_direction
from overtone.discover.decompose import decompose
from overtone.discover.settings import CausalSettings
from overtone.discover.vectors import (
    CHOICE,
    CLEARED,
    DENSE,
    FROM_ATOMS,
    KINDS,
    WEIGHTED,
    Candidate,
    _Makers,
    add_arm,
    boundaries,
    candidates,
    steerable,
    steering_sites,
)


@pytest.fixture(scope="module")
def nexts(found):
    sites = steering_sites(found.material, found.settings)
    return decompose(found.run, found.material, found.settings, found.settings.boundary, bases=False, sites=sites)


@pytest.fixture(scope="module")
def made(found, nexts):
    return candidates(found.material, nexts, ("reflection", "transition"))


def some_direction(found, site: str = "residual.1"):
    vector = torch.randn(32, generator=torch.Generator().manual_seed(0))
    rows = torch.randn(40, 32, generator=torch.Generator().manual_seed(1))
    return unit_direction(vector, site, model=found.subject.model.fingerprint, rows=rows)


def test_by_default_all_that_is_shown_and_no_frame_is_steered(found):
    wanted = steerable(found.material, found.settings)
    assert set(wanted) == set(found.material.behaviours) - {"execution"} and wanted
    asked = found.settings.replaced(causal=CausalSettings(behaviours=("execution",)))
    assert steerable(found.material, asked) == ("execution",)  # the frame too, if somebody asks for it


def test_a_behaviour_that_is_not_shown_is_refused_with_those_that_are(found):
    asked = found.settings.replaced(causal=CausalSettings(behaviours=("planning",)))
    with pytest.raises(DataError, match=r"planning.*execution"):
        steerable(found.material, asked)


def test_boundaries_are_where_a_step_is_decided(found):
    when = boundaries(found.material)
    assert when.after == found.subject.delimiters and when.include_prompt_end and when.phases == {"generation"}


def test_every_candidate_is_a_unit_vector_at_its_place_measured_over_fit_states(found, made, nexts):
    assert {c.behaviour for c in made} == {"reflection", "transition"} and {c.kind for c in made} <= set(KINDS)
    assert len({c.name for c in made}) == len(made)
    for c in made:
        assert float(c.direction.vector.norm()) == pytest.approx(1, abs=1e-5)
        assert c.direction.model == found.subject.model.fingerprint and c.direction.site in found.material.sites
        fit = nexts.rows.x[c.direction.site][nexts.rows.index("fit")]
        assert c.direction.mean_norm == pytest.approx(float(fit.norm(dim=1).mean()), rel=1e-4)


def test_the_mean_difference_is_the_difference_of_means(made, nexts):
    picked = nexts.rows.index("fit")
    labels = nexts.rows.picked(nexts.rows.labels, picked)
    x, is_one = nexts.rows.x[Site("residual", 1)][picked].double(), torch.tensor([x == "reflection" for x in labels])
    expected = torch.nn.functional.normalize(x[is_one].mean(0) - x[~is_one].mean(0), dim=0)
    (mine,) = [c for c in made if c.name == "reflection mean difference residual.1"]
    torch.testing.assert_close(mine.direction.vector.double(), expected, atol=1e-5, rtol=0)


def test_kinds_are_either_found_without_labels_or_dense():
    assert set(FROM_ATOMS) | set(DENSE) <= set(KINDS) and not set(FROM_ATOMS) & set(DENSE)


def test_the_later_half_of_the_layers_is_steered_or_the_one_that_is_asked_for(found, nexts):
    layers = [site.layer for site in found.material.sites]
    assert [s.layer for s in nexts.dictionaries] == layers[len(layers) // 2 :]
    asked = found.settings.replaced(causal=CausalSettings(layer=0))
    assert steering_sites(found.material, asked) == (Site("residual", 0),)


def test_cleared_atoms_share_nothing_with_those_of_other_behaviours(found, nexts, monkeypatch):
    monkeypatch.setattr("overtone.discover.vectors.LEAST_Z", 0.5)  # random weights tell little
    makers = _Makers(found.material, nexts, Site("residual", 1))
    own, cleared = makers._weighted("reflection"), makers._cleared("reflection")
    for other in found.material.behaviours:
        vector = makers._known_weighted(other)
        if other != "reflection" and vector is not None and float(vector.norm()) > 0:
            assert abs(float(torch.cosine_similarity(cleared, vector, 0))) < 1e-3, other
    assert float(cleared @ own) > 0 and float(cleared.norm()) < float(own.norm())


def test_what_comes_in_the_place_of_a_behaviour_shares_its_places(found, nexts):
    """Planted: transitions come only after steps of kind x, as often as reflections do; executions come everywhere."""
    makers = _Makers(found.material, nexts, Site("residual", 1))
    makers.before = ("x",) * 20 + ("y",) * 100
    makers.labels = ("reflection",) * 8 + ("transition",) * 8 + ("execution",) * 104
    assert makers._in_its_place("transition") == "reflection"
    makers.labels = ("reflection",) * 20 + ("execution",) * 100
    with pytest.raises(DataError, match="nothing ever comes in the place of transition"):
        makers._in_its_place("transition")


def test_vectors_of_atoms_lie_in_their_span(made, nexts):
    for c in made:
        if c.kind in (WEIGHTED, CHOICE, CLEARED):
            atoms = nexts.dictionaries[c.direction.site].atoms().detach().double()
            rest = torch.linalg.lstsq(atoms.T, c.direction.vector.double()[:, None]).residuals
            assert rest.numel() == 0 or float(rest.max()) < 1e-3


def test_a_dose_of_zero_is_no_steering(found):
    direction = some_direction(found)
    assert add_arm(direction, 0.0, boundaries(found.material)) == ()
    (one,) = add_arm(direction, -0.5, boundaries(found.material))
    moved = one.edit.apply(torch.zeros(2, 32), direction)
    torch.testing.assert_close(moved.norm(dim=1), torch.full((2,), 0.5 * direction.mean_norm))


def test_a_candidate_keeps_its_name_when_its_sign_turns(found):
    one = Candidate("centroid", "reflection", some_direction(found))
    assert one.negated().name == one.name == "reflection centroid residual.1"
    assert one.negated().turned
    torch.testing.assert_close(one.negated().negated().direction.vector, one.direction.vector)
