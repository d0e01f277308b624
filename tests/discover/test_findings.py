"""Findings on recovery, geometry, confidence, length and transfer, from sections made by hand."""

import math

import pytest

import made_series
from made_series import causality, steered
from overtone.discover import findings
from overtone.discover.causality import CONFIDENT, CONFIDENT_CONTROL, RANDOM
from overtone.discover.effects import Tables
from overtone.discover.page.sections import BehaviourAuroc, Estimate, LayerSeparability, LengthResult
from overtone.discover.settings import DiscoverSettings

CORE = ("reflection", "backtracking", "alternative", "conclusion")


def row(behaviour, auroc=0.95, pca=0.8, random=0.75, shuffled=0.5, *, split="problems", low=None):
    controls = {"PCA axes": pca, "random decoder": random, "shuffled labels": shuffled}
    estimate = Estimate(auroc, auroc - 0.03 if low is None else low, auroc + 0.03)
    return BehaviourAuroc(
        behaviour, split, estimate, {n: Estimate(v) for n, v in controls.items()}, "residual.2", 7, "mean", None, 50
    )


def recovery(*rows):
    return {f.id: f for f in findings.recovery(rows)}


# ------------------------------------------------------------------------------------------------------------ recovery
def test_a_latent_above_every_basis_recognises():
    f = recovery(row("reflection"))["a.reflection.problems"]
    assert f.holds is True and f.measured == 0.95 and f.control == 0.8 and f.control_name == "PCA axes"
    assert f.interval == pytest.approx((0.92, 0.98)) and f.n == 50 and f.n_of == "steps"


@pytest.mark.parametrize(
    "changes",
    [{"pca": 0.96}, {"random": 0.96}, {"auroc": 0.45, "pca": 0.4, "random": 0.4}, {"low": 0.49}],
)
def test_a_latent_that_some_basis_equals_or_chance_explains_does_not(changes):
    assert recovery(row("reflection", **changes))["a.reflection.problems"].holds is False


def test_the_mean_holds_if_all_but_one_are_above_both_bases():
    rows = [row(b) for b in CORE]
    assert recovery(*rows)["a.mean.problems"].holds is True
    rows[0] = row(CORE[0], pca=0.97)
    assert recovery(*rows)["a.mean.problems"].holds is True
    rows[1] = row(CORE[1], pca=0.97)
    assert recovery(*rows)["a.mean.problems"].holds is False


@pytest.mark.parametrize(("auroc", "shuffled", "holds"), [(0.91, 0.5, True), (0.89, 0.5, False), (0.95, 0.56, False)])
def test_the_mean_needs_its_height_and_an_honest_null(auroc, shuffled, holds):
    f = recovery(*(row(b, auroc, shuffled=shuffled) for b in CORE))["a.mean.problems"]
    assert f.holds is holds and f.measured == pytest.approx(auroc) and f.n == 4


def test_one_behaviour_alone_must_be_above_both_bases():
    assert recovery(row("reflection", pca=0.97))["a.mean.problems"].holds is False


def test_the_mean_is_over_the_papers_behaviours_where_they_are_shown():
    found = recovery(*(row(b) for b in CORE), row("planning", 0.5))
    assert found["a.mean.problems"].measured == pytest.approx(0.95)
    assert recovery(row("transition", 0.7), row("execution", 0.9))["a.mean.problems"].measured == pytest.approx(0.8)


def test_every_split_has_its_own_mean():
    found = recovery(*(row(b) for b in CORE), *(row(b, 0.85, split="wording") for b in CORE))
    assert found["a.mean.problems"].holds is True and found["a.mean.wording"].holds is False


def test_without_rows_recovery_is_not_testable():
    (f,) = findings.recovery([])
    assert f.id.startswith("a.") and f.holds is None and f.measured is None and f.note


# -------------------------------------------------------------------------------------------------------- separability
def layer(i, silhouette, null=0.05):
    return LayerSeparability(f"residual.{i}", i, silhouette, 0.0, None, null, 0.01, 30, {})


def test_a_silhouette_above_its_null_holds():
    silhouette, depth = findings.separability([layer(0, 0.01), layer(1, 0.04), layer(2, 0.2), layer(3, 0.1)])
    assert silhouette.holds is True and silhouette.measured == 0.2 and silhouette.control == 0.05
    assert depth.measured == pytest.approx(2 / 3) and depth.holds is True


@pytest.mark.parametrize(
    "layers", [[layer(0, 0.2, null=0.3), layer(1, 0.1, null=0.3)], [layer(0, -0.1, null=-0.2), layer(1, -0.3)]]
)
def test_a_silhouette_within_its_null_or_below_zero_does_not(layers):
    silhouette, depth = findings.separability(layers)
    assert silhouette.holds is False and depth.measured == 0 and depth.holds is False


def test_layers_without_named_atoms_are_not_testable():
    (f,) = findings.separability([LayerSeparability("residual.0", 0, None)])
    assert f.id == "b.silhouette" and f.holds is None


# ---------------------------------------------------------------------------------------------------------- confidence
SEARCHED = {
    "before": 2.0, "after": 1.5, "random": [1.9, 1.8, 2.1], "path": [], "budget": 0.2, "rank_stability": 0.9,
    "top": [[3, 0.5]],
}  # fmt: skip


def confidence(data=None, *made):
    causal = causality(*made)
    series = next((s for s in made if s.role == CONFIDENT), None)
    tables = Tables(causal, DiscoverSettings())
    return {f.id: f for f in findings.confidence({**SEARCHED, **(data or {})}, series, tables)}


def test_entropy_below_baseline_and_every_random_vector_holds():
    f = confidence()["d.entropy"]
    assert f.holds is True and f.measured == 1.5 and f.control == 1.8 and f.n == 3


@pytest.mark.parametrize("data", [{"after": 1.85}, {"after": 2.5, "random": [3.0]}, {"random": [1.4, 2.0]}])
def test_entropy_that_a_random_vector_reaches_does_not(data):
    assert confidence(data)["d.entropy"].holds is False


@pytest.mark.parametrize(("stability", "holds"), [(0.8, True), (0.79, False)])
def test_the_ranking_must_stay(stability, holds):
    assert confidence({"rank_stability": stability})["d.ranking"].holds is holds


@pytest.mark.parametrize(("factor", "holds"), [(0.4, True), (1.0, False), (1.8, False)])
def test_confidence_lowers_reflection_or_not(factor, holds):
    injected = made_series.series(CONFIDENT, "reflection", {0.2: factor}, of="confidence vector")
    f = confidence(None, injected)["d.reflection"]
    assert f.holds is holds and f.measured == pytest.approx(factor, rel=0.15) and f.control_name == "unsteered"


@pytest.mark.parametrize(("control", "holds"), [(1.0, True), (0.3, False)])
def test_confidence_must_do_more_than_a_random_direction(control, holds):
    arms = [
        made_series.series(role, "reflection", {0.2: factor}, of="confidence vector")
        for role, factor in ((CONFIDENT, 0.5), (CONFIDENT_CONTROL, control))
    ]
    f = confidence(None, *arms)["d.reflection"]
    assert f.holds is holds and f.control == pytest.approx(control, rel=0.15) and "random" in f.control_name


# -------------------------------------------------------------------------------------------------- length and transfer
def test_length_holds_in_the_layer_that_is_furthest_above_its_null():
    layers = (layer(0, 0.5, null=0.6), layer(1, 0.2, null=0.05))
    (f,) = findings.length(LengthResult(100.0, layers, ()))
    assert f.id == "e.length" and f.holds is True and f.measured == 0.2
    (f,) = findings.length(LengthResult(100.0, layers[:1], ()))
    assert f.holds is False


def test_length_without_atoms_is_not_testable():
    (f,) = findings.length(LengthResult(100.0, (LayerSeparability("residual.0", 0, None),), ()))
    assert f.id == "e.length" and f.holds is None


def transfer(factors, control=1.0):
    random = made_series.series(RANDOM, "reflection", {-0.5: 1 / control, 0.5: control}, name="random 1", of="")
    causal = causality(steered("reflection", factors), random)
    return {f.id: f for f in findings.transfer(causal, Tables(causal, DiscoverSettings()))}


@pytest.mark.parametrize(
    ("factors", "control", "holds"),
    [
        ({-0.5: 0.5, 0.5: 2.0}, 1.0, True),
        ({-0.5: 2.0, 0.5: 0.5}, 1.0, False),
        ({-0.5: 1.2, 0.5: 2.0}, 1.0, False),  # more on both sides
        ({-0.5: 0.8, 0.5: 1.2}, 2.0, False),  # a random direction does more
    ],
)
def test_transfer_keeps_the_sign_and_beats_chance(factors, control, holds):
    f = transfer(factors, control)["f.reflection"]
    assert f.holds is holds and f.control == pytest.approx(2 * math.log(control), abs=0.25)


def test_no_second_distribution_no_claim():
    assert findings.transfer(None, None) == []
