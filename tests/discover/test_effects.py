"""Findings on causes, from arms made by hand: what was planted is found to hold, what was not is found not to."""

import math

import numpy as np
import pytest

import made_series
from made_series import BASE, causality, steered
from overtone.discover import effects
from overtone.discover.causality import BIAS, RANDOM, RISE, RIVAL, SHUFFLED
from overtone.discover.settings import DiscoverSettings

DOSES = {-0.5: 0.4, -0.25: 0.7, 0.25: 1.5, 0.5: 2.2}
"""Dose -> factor of the behaviour's steps under a vector that works."""

ENDS = {-0.5: 0.4, 0.5: 2.2}
STILL = {-0.5: 1.0, 0.5: 1.0}


def random_directions(*factors):
    """Random directions, each with its own factor at every dose."""
    return [
        made_series.series(RANDOM, "reflection", {-0.5: f, 0.5: f}, name=f"random {i}", of="")
        for i, f in enumerate(factors)
    ]


def findings(*made, **shares):
    """The findings on causes by id."""
    causal = causality(*made, **shares)
    return {f.id: f for f in effects.causality(causal, effects.Tables(causal, DiscoverSettings()))}


def test_a_vector_that_works_is_found_to_work():
    found = findings(steered("reflection", DOSES), *random_directions(1.02, 0.98))
    for name in ("monotone", "suppress", "amplify", "content", "selective"):
        assert found[f"c.reflection.{name}"].holds is True, name
    assert found["c.reflection.monotone"].measured == 1
    assert found["c.reflection.amplify"].measured == pytest.approx(2.2, rel=0.1)
    assert found["c.reflection.suppress"].measured == pytest.approx(0.4, rel=0.15)


def test_an_effect_stands_beside_its_interval_control_and_size():
    found = findings(steered("reflection", DOSES), *random_directions(1.1, 0.9))
    for name, sign in (("amplify", 1), ("suppress", -1)):
        f = found[f"c.reflection.{name}"]
        assert f.interval[0] < f.measured < f.interval[1] and f.n == made_series.N and f.n_of == "traces"
        assert sign * math.log(f.control) > 0 and "2 random directions" in f.control_name


def test_a_vector_that_does_nothing_is_found_to_do_nothing():
    found = findings(steered("reflection", dict.fromkeys(DOSES, 1.0)), *random_directions(1.02, 0.98))
    for name in ("monotone", "suppress", "amplify"):
        assert found[f"c.reflection.{name}"].holds is False, name
    assert "c.reflection.selective" not in found  # no dose doubles or halves it


def test_an_effect_that_random_directions_have_too_does_not_hold():
    found = findings(steered("reflection", DOSES), *random_directions(1.6, 0.6))
    assert found["c.reflection.monotone"].holds is True
    assert found["c.reflection.amplify"].holds is found["c.reflection.suppress"].holds is False


def test_a_small_effect_does_not_hold_however_certain():
    found = findings(steered("reflection", {-0.5: 0.85, 0.5: 1.15}), *random_directions(1.0))
    assert found["c.reflection.amplify"].holds is found["c.reflection.suppress"].holds is False


def test_the_wrong_sign_does_not_hold():
    found = findings(steered("reflection", {-0.5: 2.2, 0.5: 0.4}), *random_directions(1.0))
    assert [found[f"c.reflection.{name}"].holds for name in ("monotone", "suppress", "amplify")] == [False] * 3
    assert found["c.reflection.monotone"].measured == -1


def test_one_dose_out_of_order_breaks_monotony():
    found = findings(steered("reflection", {**DOSES, 0.25: 2.6}), *random_directions(1.0))
    assert found["c.reflection.monotone"].holds is False and found["c.reflection.amplify"].holds is True


def test_a_vector_that_moves_everything_is_not_selective():
    found = findings(steered("reflection", DOSES, others=3.0), *random_directions(1.0))
    assert found["c.reflection.selective"].holds is False and found["c.reflection.selective"].measured < 1


@pytest.mark.parametrize("shares", [{"arithmetic": 0.8}, {"unknown": 0.1}])
def test_content_that_suffers_is_told(shares):
    found = findings(steered("reflection", DOSES, **shares), *random_directions(1.0))
    assert found["c.reflection.content"].holds is False


def test_where_arithmetic_is_not_known_nothing_is_said_of_it():
    found = findings(steered("reflection", DOSES, arithmetic=math.nan), *random_directions(1.0), arithmetic=math.nan)
    assert "c.reflection.content" not in found


@pytest.mark.parametrize(
    ("role", "name", "factors", "holds"),
    [
        (RISE, "scale", {-1.5: 2.0, -1.0: 1.5, 1.0: 0.6, 1.5: 0.4}, True),  # alpha removes: the steps fall
        (RISE, "scale", {-1.5: 2.0, -1.0: 1.5, 1.0: 0.6, 1.5: 1.4}, False),
        (BIAS, "bias", {-0.5: 0.8, 0.5: 1.2}, True),
        (BIAS, "bias", {-0.5: 0.2, 0.5: 4.0}, False),
        (RIVAL, "rival", {-0.5: 0.6, 0.5: 1.5}, True),
        (RIVAL, "rival", {-0.5: 0.3, 0.5: 3.0}, False),
        (SHUFFLED, "shuffled", {-0.5: 0.98, 0.5: 1.02}, True),
        (SHUFFLED, "shuffled", {-0.5: 0.7, 0.5: 1.4}, False),
    ],
)
def test_what_stands_beside_the_vector_is_compared_with_it(role, name, factors, holds):
    beside = made_series.series(role, "reflection", factors)
    found = findings(steered("reflection", DOSES), beside, *random_directions(1.0))
    assert found[f"c.reflection.{name}"].holds is holds
    assert found[f"c.reflection.{name}"].control == pytest.approx(math.log(2.2 / 0.4), abs=0.25)


@pytest.mark.parametrize(
    ("behaviour", "shares", "told"),
    [("reflection", {"correct": 0.3}, True), ("reflection", {}, False), ("backtracking", {"correct": 0.3}, None)],
)
def test_accuracy_is_a_claim_about_reflection(behaviour, shares, told):
    """Slips are there to be caught: answers that get worse when reflection is suppressed confirm it."""
    found = findings(steered(behaviour, {-0.5: 0.4, 0.5: 2.2}, **shares), *random_directions(1.0))
    claim = found.get("c.accuracy.suppress")
    assert (claim is None) if told is None else (claim.holds is told)


def test_several_behaviours_are_told_apart():
    found = findings(
        steered("reflection", DOSES), steered("backtracking", dict.fromkeys(DOSES, 1.0)), *random_directions(1.0)
    )
    assert found["c.reflection.amplify"].holds is True and found["c.backtracking.amplify"].holds is False


def test_a_behaviour_without_vector_is_not_testable():
    finding = effects.without_vector("reflection")
    assert finding.holds is None and finding.measured is None and finding.note
    assert finding.id == "c.reflection.monotone"


def test_tables_are_made_once_and_repeat():
    causal = causality(steered("reflection", DOSES), *random_directions(1.0))
    one, two = effects.Tables(causal, DiscoverSettings()), effects.Tables(causal, DiscoverSettings())
    assert one.of(causal.series[0]) is one.of(causal.series[0])
    rows = [tables.of(causal.series[0]).rows for tables in (one, two)]
    assert [r.counts for r in rows[0]] == [r.counts for r in rows[1]]
    steering = causal.series[0]
    assert set(one.controls(steering, 0.5)) == {"random 0"} and one.controls(steering, 0.25) == {}


def test_counts_are_those_that_were_planted():
    causal = causality(steered("reflection", DOSES))
    table = effects.Tables(causal, DiscoverSettings()).of(causal.series[0])
    assert [row.dose for row in table.rows] == [-0.5, -0.25, 0.0, 0.25, 0.5]
    means = [row.counts["reflection"].value for row in table.rows]
    np.testing.assert_allclose(means, [BASE["reflection"] * f for f in (0.4, 0.7, 1.0, 1.5, 2.2)], rtol=0.12)
