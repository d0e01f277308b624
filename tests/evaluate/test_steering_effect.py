"""Dose-response: hand-made tables give the numbers written beside them; planted effects are measured, noise is not."""

from math import log

import numpy as np
import pytest

from overtone.core.errors import DataError, SettingError
from overtone.evaluate.outcomes import Outcomes
from overtone.evaluate.steering_effect import (
    compare_with_controls,
    dose_table,
    kept_content,
    selective_row,
    spearman,
    summarise,
)

DOSES = (-2.0, -1.0, 0.0, 1.0, 2.0)


def rng():
    return np.random.default_rng(0)


def steered(strength=0.5, off_target=0.0, n=200, seed=0, doses=DOSES):
    """Traces whose reflections are Poisson with log rate rising by `strength` per dose; 40 problems."""
    made, random = [], np.random.default_rng(seed)
    for dose in doses:
        for i in range(n):
            problem = i % 40
            reflect = random.poisson(2 * np.exp(strength * dose + 0.2 * np.sin(problem)))
            back = random.poisson(1.0 * np.exp(off_target * dose))
            made.append(
                {"problem": f"p{problem}", "dose": dose, "count.reflection": reflect, "count.backtracking": back,
                 "count.execution": 5, "steps": reflect + back + 5, "tokens": 10 * (reflect + back + 5),
                 "correct": random.random() < 0.6 + 0.1 * dose, "finished": True, "false_success": 0,
                 "arithmetic_valid": 5, "arithmetic_total": 5, "legal": reflect + back + 5, "unknown": 0}
            )  # fmt: skip
    return Outcomes.from_rows(made)


def by_hand(counts, steps, **columns):
    """One trace per entry: counts of `a` and of `b`, by dose."""
    doses = [d for d, c in counts.items() for _ in c]
    flat = [pair for c in counts.values() for pair in c]
    made = {"problem": [f"p{i}" for c in counts.values() for i in range(len(c))], "dose": doses, "steps": steps,
            "count.a": [a for a, _ in flat], "count.b": [b for _, b in flat]}  # fmt: skip
    return Outcomes.from_columns(made | columns)


def test_counts_shares_and_effects_are_those_of_the_hand_made_table():
    outcomes = by_hand({0: [(2, 1), (4, 1)], 1: [(6, 1), (6, 3)]}, [10, 10, 20, 10], tokens=[50, 70, 90, 110])
    table = dose_table(outcomes, rng=rng(), draws=50)
    base, high = table.rows
    assert (base.counts["a"].value, high.counts["a"].value) == (3, 6)
    assert (base.shares["a"].value, high.shares["a"].value) == (6 / 20, 12 / 30)
    assert high.effects["a"].value == pytest.approx(log(12.5 / 2) - log(6.5 / 2))
    assert high.share_effects["b"].value == pytest.approx(log(4.5 / 30) - log(2.5 / 20))
    assert high.measures["tokens"].value == 100 and high.changes["tokens"].value == 40
    assert (high.n_traces, high.n_problems) == (2, 2)
    assert base.effects["a"].value == base.effects["a"].low == base.effects["a"].high == 0


def test_what_is_not_known_is_left_out_and_never_taken_for_zero():
    outcomes = by_hand({0: [(2, 1), (4, 1)]}, [10, 10], correct=[1, None], kl=[None, None])
    row = dose_table(outcomes.from_columns({**outcomes.to_columns(), "dose": [0, 1]}), rng=rng(), draws=50).rows[0]
    assert row.measures["accuracy"].value == 1
    assert np.isnan(row.measures["kl"].value) and row.measures["kl"].interval is None


def test_a_planted_effect_is_monotone_measured_in_nats_and_covered():
    table = dose_table(steered(), rng=rng(), draws=300)
    found = summarise(table, "reflection")
    assert found.monotonicity.value == 1
    assert found.highest.low < 1.0 < found.highest.high and found.lowest.low < -1.0 < found.lowest.high
    assert found.change_high == pytest.approx(np.exp(found.highest.value) - 1) and found.change_high > 1
    assert found.asymmetry == pytest.approx(0, abs=0.15)
    assert table.at(2.0).changes["accuracy"].value == pytest.approx(0.2, abs=0.1)


def test_noise_has_an_interval_around_zero():
    table = dose_table(steered(strength=0.0), rng=rng(), draws=300)
    assert not table.at(2.0).effects["reflection"].excludes(0)
    assert abs(table.at(2.0).share_effects["backtracking"].value) < 0.25


def test_counts_and_shares_part_when_everything_else_grows_too():
    """Twice as many steps of all kinds: the count doubles, the share stays."""
    outcomes = by_hand({0: [(20, 10)] * 4, 1: [(40, 20)] * 4}, [30] * 4 + [60] * 4)
    row = dose_table(outcomes, rng=rng(), draws=50).at(1)
    assert row.effects["a"].value == pytest.approx(log(2), abs=0.01)
    assert row.share_effects["a"].value == pytest.approx(0, abs=0.01)


def test_comparisons_are_paired_by_problem():
    """Problems differ a lot, the change is the same for all of them: its interval knows that."""
    lengths = np.repeat([5, 50, 500, 5000], 5)
    outcomes = by_hand({0: [(1, 1)] * 20, 1: [(1, 1)] * 20}, [9] * 40, tokens=[*lengths, *(lengths + 7)])
    row = dose_table(outcomes, rng=rng(), draws=200).at(1)
    assert (row.changes["tokens"].low, row.changes["tokens"].high) == (7, 7)
    assert row.measures["tokens"].high - row.measures["tokens"].low > 500


def test_a_behaviour_that_never_occurs_has_finite_effects():
    row = dose_table(by_hand({0: [(4, 0)], 1: [(0, 0)]}, [9, 9]), rng=rng(), draws=50).at(1)
    assert row.effects["a"].value == pytest.approx(log(0.5 / 4.5)) and row.effects["b"].value == 0


def test_spearman_is_that_of_scipy_and_zero_for_a_flat_response():
    from scipy.stats import spearmanr

    responses = np.random.default_rng(0).integers(0, 4, size=(5, 20)).astype(float)
    responses[:, 0] = 3.0
    wanted = [0.0, *(spearmanr(DOSES, responses[:, j]).statistic for j in range(1, 20))]
    np.testing.assert_allclose(spearman(np.array(DOSES), responses), wanted, atol=1e-12)
    with pytest.raises(DataError, match="at least two"):
        spearman(np.array([1.0]), np.ones((1, 2)))


def test_selectivity_is_read_at_the_smallest_dose_that_doubles_or_halves():
    counts = {-2: [(10, 40)], -1: [(30, 40)], 0: [(40, 40)], 1: [(60, 50)], 2: [(400, 80)]}
    table = dose_table(by_hand(counts, [500] * 5), rng=rng(), draws=50)
    found = summarise(table, "a")
    assert found.selective_dose == -2 and found.selectivity == float("inf")  # nothing else moved
    assert selective_row(table, "a", at_least=2.0).dose == 2
    weaker = summarise(dose_table(by_hand({0: [(40, 40)], 2: [(400, 80)]}, [500] * 2), rng=rng(), draws=50), "a")
    assert weaker.selectivity == pytest.approx(log(400.5 / 40.5) / log(80.5 / 40.5))
    none = summarise(dose_table(by_hand({0: [(40, 40)], 2: [(44, 80)]}, [500] * 2), rng=rng(), draws=50), "a")
    assert none.selective_dose is None and none.selectivity is None


def test_content_is_kept_until_arithmetic_or_language_breaks():
    counts = {0: [(1, 1)], 1: [(1, 1)], 2: [(1, 1)], 3: [(1, 1)]}
    sound = dict(arithmetic_valid=[99, 97, 90, 99], arithmetic_total=[100] * 4, unknown=[0, 2, 0, 5])
    table = dose_table(by_hand(counts, [100] * 4, **sound), rng=rng(), draws=50)
    assert [kept_content(table, d) for d in (0, 1, 2, 3)] == [True, True, False, False]


def test_a_real_effect_beats_its_controls_and_noise_does_not():
    controls = {f"random {i}": steered(strength=0.01, seed=i + 1) for i in range(3)}
    won = compare_with_controls(steered(), controls, "reflection", 2.0, rng=rng(), draws=200)
    assert won.holds and won.ratio.value >= 4 and set(won.controls) == set(controls)
    assert won.ratio.value == pytest.approx(won.effect.value / won.control)
    lost = compare_with_controls(steered(strength=0.0), controls, "reflection", 2.0, rng=rng(), draws=200)
    assert not lost.holds
    on_shares = compare_with_controls(steered(), controls, "reflection", -2.0, rng=rng(), draws=200, shares=True)
    assert on_shares.effect.value < 0 and on_shares.holds


def test_a_control_without_baseline_uses_that_of_the_steered_arm():
    alone = compare_with_controls(steered(), {"same": steered(doses=(2.0,))}, "reflection", 2.0, rng=rng(), draws=50)
    assert alone.ratio.value == pytest.approx(1, abs=0.2)


def test_mistakes_are_named():
    outcomes = by_hand({1: [(1, 1)], 2: [(1, 1)]}, [9, 9])
    with pytest.raises(DataError, match="no trace has dose 0"):
        dose_table(outcomes, rng=rng())
    table = dose_table(outcomes, rng=rng(), draws=50, baseline=1.0)
    with pytest.raises(SettingError, match="'c' was not counted"):
        summarise(table, "c")
    with pytest.raises(DataError, match="dose 9 was not run"):
        table.at(9)
    with pytest.raises(DataError, match="no control"):
        compare_with_controls(outcomes, {}, "a", 2.0, rng=rng(), baseline=1.0)
