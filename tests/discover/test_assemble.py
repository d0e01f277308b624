"""Sections of the report: the numbers that were measured, each in its place."""

import math

import numpy as np
import pytest

import made_series
from made_series import causality, steered
from overtone.core.report import Finding
from overtone.discover import assemble
from overtone.discover.causality import (
    BIAS,
    CONFIDENT,
    CONFIDENT_CONTROL,
    RANDOM,
    RISE,
    RIVAL,
    SHUFFLED,
    Causality,
    Kept,
    Series,
)
from overtone.discover.crew import Task
from overtone.discover.effects import Tables
from overtone.discover.page.sections import ModelFacts
from overtone.discover.settings import DiscoverSettings
from overtone.discover.subject import Prompt
from overtone.evaluate.outcomes import COUNT

DOSES = {-0.5: 0.5, 0.5: 2.0}


def with_tables(*made):
    causal = causality(*made)
    return causal, Tables(causal, DiscoverSettings())


@pytest.fixture(scope="module")
def everything():
    """One behaviour with all that stands beside it."""
    beside = [made_series.series(role, "reflection", DOSES) for role in (RIVAL, SHUFFLED, BIAS)]
    rise = made_series.series(RISE, "reflection", {-1.0: 1.5, 1.0: 0.6})
    random = [made_series.series(RANDOM, "reflection", {-0.5: f, 0.5: 1}, name=f"r{f}", of="") for f in (1.0, 1.3)]
    return with_tables(steered("reflection", DOSES), *beside, rise, *random)


# --------------------------------------------------------------------------------------------------------------- doses
def test_a_curve_holds_the_vector_and_all_that_ran_beside_it(everything):
    added, scaled = assemble.dose_curves(*everything, {("reflection", 0.5): 0.7})
    assert [s.role for s in added.series] == ["steered", "rival", "shuffled", "bias", "random", "random"]
    assert (added.edit, scaled.edit) == ("add", "scale") and [s.role for s in scaled.series] == ["steered"]
    assert added.spearman == 1 and scaled.spearman == -1
    assert added.control_effect == pytest.approx(math.log(1.3), abs=0.12)


def test_points_are_the_measured_means_at_every_dose(everything):
    causal, tables = everything
    steered_series = assemble.dose_curves(causal, tables, {("reflection", 0.5): 0.7})[0].series[0]
    assert [p.strength for p in steered_series.points] == [-0.5, 0.0, 0.5]
    for point in steered_series.points:
        arm = causal.baseline if point.strength == 0 else causal.series[0].arms[point.strength]
        counts = [row[COUNT + "reflection"] for row in arm.outcomes]
        assert point.counts["reflection"].value == pytest.approx(np.mean(counts))
        assert point.rates["reflection"].value == pytest.approx(sum(counts) / sum(r["steps"] for r in arm.outcomes))
        assert point.accuracy.value == pytest.approx(np.mean([r["correct"] for r in arm.outcomes]))
        assert 0 < point.accuracy.low <= point.accuracy.value <= point.accuracy.high <= 1
    assert [p.kl.value if p.kl else None for p in steered_series.points] == [None, None, 0.7]


def test_what_is_not_known_is_left_out():
    causal, tables = with_tables(steered("reflection", DOSES, arithmetic=math.nan))
    (curve,) = assemble.dose_curves(causal, tables, {})
    assert curve.series[0].points[0].validity is None and curve.control_effect is None


def test_a_summary_says_how_many_claims_hold(everything):
    facts = ModelFacts("mini", "0" * 16, 1, 1, 1, 1, 10, 50, "keywords")
    claims = [Finding(f"c.{i}", "", 1.0, "", 1, holds) for i, holds in enumerate((True, True, False, None))]
    made = assemble.summary(claims, facts, *everything)
    assert "2 of 3 claims hold" in made.sentences[1] and made.key_numbers[0].value == "2 of 3"
    assert any(n.behaviour == "reflection" and n.value.count("/") == 2 for n in made.key_numbers)


# ------------------------------------------------------------------------------------------------- confidence, transfer
def test_the_confidence_section_compares_like_with_like():
    injected, random = (
        made_series.series(role, "reflection", {0.2: factor}, of="confidence vector")
        for role, factor in ((CONFIDENT, 0.4), (CONFIDENT_CONTROL, 1.2))
    )
    _, tables = with_tables(injected, random)
    data = {"before": 2.0, "after": 1.0, "random": [1.5], "budget": 0.5, "path": [2.0, 1.0], "rank_stability": 0.9,
            "top": [[3, 0.5]]}  # fmt: skip
    made = assemble.confidence_section(data, "residual.1", None, injected, tables)
    (effect,) = [e for e in made.effects if e.name == "reflection steps"]
    assert effect.after.value / effect.before.value == pytest.approx(0.4, rel=0.15)
    assert effect.control.value / effect.before.value == pytest.approx(1.2, rel=0.1)
    assert {e.name for e in made.effects} == {f"{b} steps" for b in made_series.BASE} | {"accuracy", "tokens"}
    assert (made.entropy_before, made.entropy_after, made.top[0].latent) == (2.0, 1.0, 3)
    assert assemble.confidence_section(data, "residual.1", None, None, tables).effects == ()


def test_transfer_rows_hold_all_arms():
    random = made_series.series(RANDOM, "reflection", {-0.5: 1.0, 0.5: 1.1}, name="r", of="")
    (row,) = assemble.transfer_rows(*with_tables(steered("reflection", DOSES), random), "sums")
    values = [e.value for e in (row.suppressed, row.unsteered, row.control, row.amplified)]
    assert values == sorted(values) and row.n == 0
    assert assemble.transfer_rows(None, None, "sums") == []


# ------------------------------------------------------------------------------------------------- traces side by side
@pytest.fixture(scope="module")
def arms(found):
    """The held-out prompts answered by hand: more reflection at +1 and none at -1, most of all for prompt 2."""
    prompts = [Prompt(t.prompt_ids, t.group, {}) for t in found.material.of("test")[:4]]
    task = Task("plain", tuple(prompts), (0, 1, 2, 3))
    plain = found.crew.all([task], "plain")["plain"]
    encode = found.subject.model.tokenizer.encode

    def arm(dose, n_reflections):
        texts = ["The sum is 3.\n\n" + "Wait, \n\n".replace(" \n", ".\n") * n for n in n_reflections]
        rows = [{**row, "dose": dose, COUNT + "reflection": n, "steps": n + 1}
                for row, n in zip(plain.outcomes, n_reflections, strict=True)]  # fmt: skip
        return Kept(dose, rows, [encode(text) for text in texts])

    baseline, low, high = arm(0.0, (1, 1, 1, 1)), arm(-1.0, (0, 1, 0, 0)), arm(1.0, (1, 1, 3, 2))
    return Causality((), baseline, (Series("steered", "vector", "reflection", None, {-1.0: low, 1.0: high}),))


def test_the_traces_shown_are_those_in_which_the_vector_does_most(found, arms):
    shown = assemble.side_by_side(found.material, arms, n=2)
    assert [[len(p.steps) for p in t.panels] for t in shown] == [[1, 2, 4], [1, 2, 3]]
    assert [p.role for p in shown[0].panels] == ["suppressed", "unsteered", "amplified"]
    assert shown[0].prompt == found.material.of("test")[2].meta["prompt"]


def test_panels_show_steps_with_their_names_and_whether_they_were_steered(found, arms):
    _, unsteered, amplified = assemble.side_by_side(found.material, arms, n=1)[0].panels
    assert [s.behaviour for s in amplified.steps] == ["execution", *["reflection"] * 3]
    assert amplified.steps[0].text == "The sum is 3" and amplified.strength == 1.0
    assert all(s.edited for s in amplified.steps) and not any(s.edited for s in unsteered.steps)


# ----------------------------------------------------------------------------------------------------------- the model
def test_facts_of_the_model_are_those_of_its_unsteered_held_out_traces(found):
    facts = assemble.model_facts(found.material, 0)
    test = [o for o, t in zip(found.material.outcomes, found.material.traces, strict=True) if t.meta["split"] == "test"]
    assert facts.n_traces == len(found.material.traces)
    assert facts.n_steps == sum(o["steps"] for o in found.material.outcomes)
    assert facts.tokens.value == pytest.approx(np.mean([o["tokens"] for o in test]))
    assert facts.solve_rate.value == pytest.approx(np.mean([o["correct"] for o in test]))
    assert facts.arithmetic is None and facts.labels == "keywords"
    assert sum(s.model for s in facts.behaviours) == pytest.approx(1)
    assert all(s.reference is None for s in facts.behaviours)


def test_prompts_without_answer_do_not_count_as_wrong(found):
    rows = [{**o, "correct": None if i % 2 else True} for i, o in enumerate(found.material.outcomes)]
    material = type(found.material)(found.subject, found.material.sites, found.material.traces, tuple(rows))
    assert assemble.model_facts(material, 0).solve_rate.value == 1
