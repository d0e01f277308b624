"""Candidate vectors: where they live, what they are made of, and how a few problems of `select` decide about them."""

import math
from dataclasses import replace

import pytest
import torch

from overtone.core.errors import DataError
from overtone.core.sites import Site
from overtone.directions.direction import unit_direction
from overtone.discover.crew import Crew
from overtone.discover.decompose import decompose
from overtone.discover.material import SELECT
from overtone.discover.naming import Naming
from overtone.discover.settings import CausalSettings
from overtone.discover.vectors import (
    DENSE,
    FROM_ATOMS,
    KINDS,
    Candidate,
    Trial,
    add_arm,
    boundaries,
    candidates,
    signed,
    steerable,
    trials,
)


@pytest.fixture(scope="module")
def nexts(found):
    return decompose(found.run, found.material, found.settings, found.settings.boundary, bases=False)


@pytest.fixture(scope="module")
def made(found, nexts):
    named = decompose(found.run, found.material, found.settings, found.settings.naming, bases=True)
    return candidates(found.material, nexts, Naming(found.material, named, 0), ("reflection", "transition"))


def some_direction(found, site: str = "residual.1"):
    vector = torch.randn(32, generator=torch.Generator().manual_seed(0))
    rows = torch.randn(40, 32, generator=torch.Generator().manual_seed(1))
    return unit_direction(vector, site, model=found.subject.model.fingerprint, rows=rows)


def a_trial(found, low: float, base: float, high: float, unknown: float = 0.0, **candidate) -> Trial:
    given = {"kind": "centroid", "behaviour": "reflection", "direction": some_direction(found)} | candidate
    return Trial(Candidate(**given), low, base, high, unknown)


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


@pytest.mark.parametrize(
    ("low", "base", "high", "swing", "both"),
    [
        (0.9, 1.9, 3.9, math.log(4), math.log(2)),  # doubles and halves
        (3.9, 1.9, 0.9, -math.log(4), math.log(2)),  # the same with the sign turned
        (1.9, 1.9, 3.9, math.log(2), 0.0),  # amplifies only
        (3.9, 1.9, 3.9, 0.0, -math.log(2)),  # more on both sides is no vector of it
    ],
)
def test_swing_and_both_ways_are_log_ratios(found, low, base, high, swing, both):
    trial = a_trial(found, low, base, high)
    assert trial.swing == pytest.approx(swing, abs=1e-9) and trial.both_ways == pytest.approx(both, abs=1e-9)


def test_the_sign_is_set_so_that_adding_amplifies(found):
    up, down = a_trial(found, 1.0, 2.0, 3.0), a_trial(found, 3.0, 2.0, 1.0)
    assert signed(up) is up.candidate
    torch.testing.assert_close(signed(down).direction.vector, -down.candidate.direction.vector)


def test_a_dose_of_zero_is_no_steering(found):
    direction = some_direction(found)
    assert add_arm(direction, 0.0, boundaries(found.material)) == ()
    (one,) = add_arm(direction, -0.5, boundaries(found.material))
    moved = one.edit.apply(torch.zeros(2, 32), direction)
    torch.testing.assert_close(moved.norm(dim=1), torch.full((2,), 0.5 * direction.mean_norm))


def test_candidates_are_tried_on_selection_problems_only(found):
    asked = []

    class Watched(Crew):
        def each(self, tasks, label):
            asked.extend(tasks)
            return super().each(tasks, label)

    candidate = Candidate("centroid", "reflection", some_direction(found))
    (trial,) = trials(Watched(found.subject, found.settings), found.material, [candidate], 0.5, 10)
    select = {t.group for t in found.material.of(SELECT)}
    assert [t.dose for t in asked] == [0.0, -0.5, 0.5]
    assert all(p.group in select and len(t.prompts) == 10 for t in asked for p in t.prompts)
    assert trial.candidate is candidate and trial.low >= 0 and trial.to_dict()["site"] == "residual.1"


def test_nothing_to_try_is_nothing_tried(found):
    assert trials(Crew(found.subject, found.settings), found.material, [], 0.5, 4) == []


def test_a_candidate_keeps_its_name_when_its_sign_turns(found):
    one = Candidate("centroid", "reflection", some_direction(found))
    assert replace(one, direction=one.direction.negated()).name == one.name == "reflection centroid residual.1"
