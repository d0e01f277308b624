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
    SECONDARY_SHARE,
    SHUFFLED,
    STEERED,
    Experiment,
    held_out_prompts,
    unsteered,
)
from overtone.discover.choice import Choice
from overtone.discover.crew import Crew, Task
from overtone.discover.material import TEST
from overtone.discover.run import Run
from overtone.discover.vectors import Candidate


def direction(found, seed: int = 0, site: str = "residual.1"):
    vector = torch.randn(32, generator=torch.Generator().manual_seed(seed))
    rows = found.material.rows(found.run, "next").x[Site.parse(site)]
    return unit_direction(vector, site, model=found.subject.model.fingerprint, rows=rows, name=f"seed {seed}")


@pytest.fixture(scope="module")
def chosen(found):
    """A choice of one vector, and perhaps a rival, at the doses of the settings."""

    def make(seed: int = 0, site: str = "residual.1", doses: tuple[float, ...] = (), rival: bool = False) -> Choice:
        steered = Candidate("centroid", "reflection", direction(found, seed, site))
        other = Candidate("mean difference", "reflection", direction(found, seed + 1, site)) if rival else None
        return Choice(steered, doses or found.settings.causal.doses, other)

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


# ----------------------------------------------------------------------------------------------------------- the arms
def test_the_unsteered_arm_is_what_no_steering_gives_under_the_same_random_numbers(found):
    prompts = held_out_prompts(found.material)
    assert [p.group for p in prompts] == [t.group for t in found.material.of(TEST)]
    again = found.crew.all([Task("plain", prompts, tuple(range(len(prompts))))], "plain")["plain"]
    kept = unsteered(found.material)
    assert kept.outcomes == again.outcomes and kept.dose == 0.0
    assert kept.responses == [list(t.response_ids) for t in again.traces[: len(kept.responses)]]


def test_what_is_asked_of_a_behaviour(found, tmp_path, chosen):
    plan = experiment(found, Run(tmp_path / "run", resume=True))
    plan.plan_behaviour("reflection", chosen(rival=True), full=True)
    plan.plan_behaviour("transition", chosen(), full=False)
    plan.plan_random([chosen()])
    causal = plan.results()
    full = [(role, "reflection") for role in (STEERED, RIVAL, SHUFFLED, BIAS, RISE)]
    assert [(s.role, s.behaviour) for s in causal.series] == [*full, (STEERED, "transition"), (RANDOM, "")]
    doses = found.settings.causal.doses
    for role, expected in ((STEERED, doses), (RIVAL, doses), (BIAS, doses), (RISE, ALPHAS), (RANDOM, doses)):
        assert tuple(causal.of(role)[0].arms) == expected
    n = len(causal.prompts)
    lengths = [len(next(iter(s.arms.values())).outcomes) for s in causal.series]
    share = max(4, round(SECONDARY_SHARE * n))
    assert lengths == [n, share, share, share, share, share, n]
    for series in causal.series:
        for dose, kept in series.arms.items():
            assert {row["dose"] for row in kept.outcomes} == {dose} == {kept.dose}


def test_arms_are_answered_once(found, tmp_path):
    d = direction(found)

    def planned(crew: Crew | None = None, **changes) -> Experiment:
        made = experiment(found, Run(tmp_path / "run", resume=True), crew, **changes)
        made.add(STEERED, "vector", "reflection", d, (-0.5, 0.5), 0.2)
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
    here.add(STEERED, "vector", "reflection", d, (-0.5, 0.5), 0.2)
    here.results()
    there = experiment(found, run, Idle(found.subject, found.settings))
    there.prompts = tuple(reversed(there.prompts))
    there.add(STEERED, "vector", "reflection", d, (-0.5, 0.5), 0.2)
    with pytest.raises(AssertionError, match="2 arms"):
        there.results()


def test_random_directions_of_two_sites_are_not_taken_for_one_another(found, tmp_path, chosen):
    plan = experiment(found, Run(tmp_path / "run", resume=True))
    plan.plan_random([chosen(site="residual.0"), chosen(site="residual.2")])
    causal = plan.results()
    assert len({s.name for s in causal.series}) == 2
    assert causal.series[0].arms != causal.series[1].arms
    assert causal.series[0].direction.site != causal.series[1].direction.site


def test_a_series_stands_beside_the_random_directions_of_its_site_and_doses(found, tmp_path, chosen):
    plan = experiment(found, Run(tmp_path / "run", resume=True))
    choices = [chosen(), chosen(seed=2, doses=(-0.3, 0.3)), chosen(site="residual.2")]
    for n, one in enumerate(choices):
        plan.add(STEERED, f"vector {n}", "reflection", one.steered.direction, one.doses, 0.2)
    plan.plan_random(choices)
    causal = plan.results()
    for one, series in zip(choices, causal.of(STEERED), strict=True):
        (random,) = causal.random_beside(series)
        assert random.direction.site == one.site and tuple(sorted(random.arms)) == one.extremes


def test_random_directions_are_as_long_as_what_they_stand_beside(found, tmp_path, chosen):
    plan = experiment(found, Run(tmp_path / "run", resume=True))
    like = chosen().steered.direction
    plan.plan_random([chosen()])
    (series,) = plan.results().series
    assert series.direction.mean_norm == like.mean_norm and abs(series.direction.cosine(like)) < 0.9


def test_outcomes_of_a_series_are_joined_by_the_baseline_of_its_own_problems(found, tmp_path):
    plan = experiment(found, Run(tmp_path / "run", resume=True))
    plan.add(STEERED, "vector", "reflection", direction(found), (-0.5, 0.5), 0.2)
    causal = plan.results()
    joined = causal.series[0].outcomes(causal.baseline)
    assert joined.doses == (-0.5, 0.0, 0.5)
    assert set(joined.at(0.0).problem) == set(joined.at(0.5).problem)
