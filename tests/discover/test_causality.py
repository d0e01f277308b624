"""Arms on the held-out problems: chosen on other problems, answered with the same random numbers, kept one by one."""

import pytest
import torch

from overtone.core.sites import Site
from overtone.directions.direction import unit_direction
from overtone.discover.causality import (
    ALPHAS,
    BIAS,
    RANDOM,
    RISE,
    RIVAL,
    SHUFFLED,
    STEERED,
    Experiment,
    choose,
    chosen,
    held_out_prompts,
    most_wanted,
    sites_of,
    unsteered,
)
from overtone.discover.crew import Crew, Task
from overtone.discover.material import TEST
from overtone.discover.run import Run
from overtone.discover.vectors import Candidate, Trial

KINDS = ("centroid",)


def direction(found, seed: int = 0, site: str = "residual.1"):
    vector = torch.randn(32, generator=torch.Generator().manual_seed(seed))
    rows = found.material.rows(found.run, "next").x[Site.parse(site)]
    return unit_direction(vector, site, model=found.subject.model.fingerprint, rows=rows, name=f"seed {seed}")


@pytest.fixture(scope="module")
def trial(found):
    def make(low, base, high, *, unknown=0.0, kind="centroid", behaviour="reflection", seed=0, site="residual.1"):
        return Trial(Candidate(kind, behaviour, direction(found, seed, site)), low, base, high, unknown)

    return make


class Idle(Crew):
    """A crew that must not be asked anything."""

    def each(self, tasks, label):
        assert not tasks, f"{len(tasks)} arms were answered again"
        return iter(())


def experiment(found, run: Run | None = None, crew: Crew | None = None, **changes) -> Experiment:
    settings = found.settings.replaced(**changes)
    return Experiment(
        run or found.run, crew or found.crew, found.material, found.material.rows(found.run, "next"), settings
    )


# ---------------------------------------------------------------------------------------------------------- the choice
def test_the_vector_that_works_both_ways_is_chosen(trial):
    one_sided, both, weak = trial(1.0, 1.0, 9.0), trial(0.5, 1.0, 2.0), trial(0.9, 1.0, 1.1)
    assert choose([one_sided, weak, both], KINDS, "reflection") is both


def test_a_vector_that_garbles_steps_comes_last_however_strong(trial):
    garbling, sound = trial(0.0, 1.0, 9.0, unknown=0.3), trial(0.8, 1.0, 1.2, unknown=0.05)
    assert choose([garbling, sound], KINDS, "reflection") is sound
    assert choose([garbling], KINDS, "reflection") is garbling


def test_only_the_kinds_and_the_behaviour_asked_for_compete(trial):
    dense, other = trial(0.0, 1.0, 9.0, kind="mean difference"), trial(0.0, 1.0, 9.0, behaviour="transition")
    assert choose([dense, other], KINDS, "reflection") is None
    assert choose([dense, other], ("mean difference",), "reflection") is dense


def test_every_behaviour_is_steered_where_its_vector_works_best_both_ways(trial):
    tried = [
        trial(0.5, 1.0, 2.0, site="residual.1"),
        trial(0.9, 1.0, 1.1, site="residual.2"),
        trial(0.9, 1.0, 1.1, site="residual.1", behaviour="transition"),
        trial(0.1, 1.0, 9.0, site="residual.2", behaviour="other"),
        trial(2.0, 1.0, 0.5, site="residual.1", kind="mean difference"),
    ]
    choice = chosen(tried, ("reflection", "transition", "other", "never tried"), KINDS)
    assert set(choice) == {"reflection", "transition", "other"}
    assert choice["reflection"][0].direction.site == choice["transition"][0].direction.site == Site("residual", 1)
    assert choice["other"][0].direction.site == Site("residual", 2)
    assert sites_of(choice) == [Site("residual", 1), Site("residual", 2)]
    rival = choice["reflection"][1]
    assert rival.direction.cosine(tried[4].candidate.direction) == pytest.approx(-1)  # its sign too is calibrated
    assert choice["transition"][1] is None


def test_nothing_tried_is_nothing_chosen():
    assert chosen([], ("reflection",), KINDS) == {} and sites_of({}) == []


def test_the_papers_behaviours_come_first():
    assert most_wanted(("alternative", "backtracking", "confidence", "reflection")) == ("backtracking", "reflection")
    assert most_wanted(("transition", "reflection")) == ("reflection", "transition")
    assert most_wanted(("a", "b", "c")) == ("a", "b") and most_wanted(("a",)) == ("a",)


# ----------------------------------------------------------------------------------------------------------- the arms
def test_the_unsteered_arm_is_what_no_steering_gives_under_the_same_random_numbers(found):
    prompts = held_out_prompts(found.material)
    assert [p.group for p in prompts] == [t.group for t in found.material.of(TEST)]
    again = found.crew.all([Task("plain", prompts, tuple(range(len(prompts))))], "plain")["plain"]
    kept = unsteered(found.material)
    assert kept.outcomes == again.outcomes and kept.dose == 0.0
    assert kept.responses == [list(t.response_ids) for t in again.traces[: len(kept.responses)]]


def test_what_is_asked_of_a_behaviour(found, tmp_path, trial):
    plan = experiment(found, Run(tmp_path / "run", resume=True))
    steered, rival = trial(0.5, 1.0, 2.0).candidate, trial(0.5, 1.0, 2.0, kind="mean difference", seed=1).candidate
    plan.plan_behaviour("reflection", steered, rival, full=True)
    plan.plan_behaviour("transition", steered, rival, full=False)
    plan.plan_random(steered.direction)
    causal = plan.results()
    full = [(role, "reflection") for role in (STEERED, RIVAL, SHUFFLED, BIAS, RISE)]
    assert [(s.role, s.behaviour) for s in causal.series] == [*full, (STEERED, "transition"), (RANDOM, "")]
    doses = found.settings.causal.doses
    for role, expected in ((STEERED, doses), (RIVAL, doses), (BIAS, doses), (RISE, ALPHAS), (RANDOM, doses)):
        assert tuple(causal.of(role)[0].arms) == expected
    n = len(causal.prompts)
    lengths = [len(next(iter(s.arms.values())).outcomes) for s in causal.series]
    assert lengths == [n, n // 3, n // 3, n // 3, n // 3, n // 2, n]
    for series in causal.series:
        for dose, kept in series.arms.items():
            assert {row["dose"] for row in kept.outcomes} == {dose} == {kept.dose}


def test_arms_are_answered_once(found, tmp_path):
    d = direction(found)

    def planned(crew: Crew | None = None, **changes) -> Experiment:
        made = experiment(found, Run(tmp_path / "run", resume=True), crew, **changes)
        made.add(STEERED, "vector", "reflection", d, made.doses, 0.2)
        return made

    first = planned().results()
    again = planned(Idle(found.subject, found.settings)).results()
    assert [s.arms for s in again.series] == [s.arms for s in first.series]
    with pytest.raises(AssertionError, match="2 arms"):  # steps have other names: every outcome is another one
        planned(Idle(found.subject, found.settings), labels="judge").results()
    with pytest.raises(AssertionError, match="2 arms"):
        planned(Idle(found.subject, found.settings), seed=1).results()


def test_an_arm_on_other_problems_is_another_arm(found, tmp_path):
    d, run = direction(found), Run(tmp_path / "run", resume=True)
    here = experiment(found, run)
    here.add(STEERED, "vector", "reflection", d, here.doses, 0.2)
    here.results()
    there = experiment(found, run, Idle(found.subject, found.settings))
    there.prompts = tuple(reversed(there.prompts))
    there.add(STEERED, "vector", "reflection", d, there.doses, 0.2)
    with pytest.raises(AssertionError, match="2 arms"):
        there.results()


def test_random_directions_of_two_sites_are_not_taken_for_one_another(found, tmp_path):
    plan = experiment(found, Run(tmp_path / "run", resume=True))
    for site in ("residual.0", "residual.2"):
        plan.plan_random(direction(found, site=site))
    causal = plan.results()
    assert len({s.name for s in causal.series}) == 2
    assert causal.series[0].arms != causal.series[1].arms
    assert causal.series[0].direction.site != causal.series[1].direction.site


def test_random_directions_are_as_long_as_what_they_stand_beside(found, tmp_path):
    plan = experiment(found, Run(tmp_path / "run", resume=True))
    like = direction(found)
    plan.plan_random(like)
    (series,) = plan.results().series
    assert series.direction.mean_norm == like.mean_norm and abs(series.direction.cosine(like)) < 0.9


def test_outcomes_of_a_series_are_joined_by_the_baseline_of_its_own_problems(found, tmp_path):
    plan = experiment(found, Run(tmp_path / "run", resume=True))
    plan.add(STEERED, "vector", "reflection", direction(found), plan.doses, 0.2)
    causal = plan.results()
    joined = causal.series[0].outcomes(causal.baseline)
    assert joined.doses == (-0.5, 0.0, 0.5)
    assert set(joined.at(0.0).problem) == set(joined.at(0.5).problem)
