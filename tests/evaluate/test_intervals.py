"""Intervals cover, pair and resample groups; Wilson's interval is the published one."""

import numpy as np
import pytest

from overtone.core.errors import DataError, SettingError, ShapeError
from overtone.evaluate.intervals import (
    Resampling,
    bootstrap_mean,
    log_ratio,
    paired_difference,
    ratio,
    wilson,
)


def grouped(rng, n_groups=40, per_group=4, spread=1.0):
    """Rows whose groups differ: values and groups."""
    centres = rng.normal(0, spread, n_groups)
    groups = np.repeat(np.arange(n_groups), per_group)
    return centres[groups] + rng.normal(0, 1, len(groups)), groups.tolist()


def test_the_interval_of_a_mean_covers_the_truth_about_95_times_in_100():
    rng = np.random.default_rng(1)
    hits = 0
    for _ in range(200):
        values, groups = grouped(rng)
        found = bootstrap_mean(values, groups, rng=rng, draws=300)
        hits += found.low <= 0 <= found.high
    assert 0.88 <= hits / 200 <= 0.985


def test_resampling_rows_instead_of_groups_would_be_too_narrow():
    """Groups matter: with strong group effects the interval is about sqrt(per_group) wider than for independent
    rows."""
    values, groups = grouped(np.random.default_rng(2), spread=5.0)
    by_group = bootstrap_mean(values, groups, rng=np.random.default_rng(0))
    by_row = bootstrap_mean(values, range(len(values)), rng=np.random.default_rng(0))
    assert 1.5 < (by_group.high - by_group.low) / (by_row.high - by_row.low) < 2.5


def test_the_point_value_is_the_plain_mean_over_rows_and_n_counts_groups():
    found = bootstrap_mean([1, 2, 3, 10], ["a", "a", "a", "b"], rng=np.random.default_rng(0))
    assert found.value == 4 and found.n == 2 and found.interval == (2, 10)


def test_equal_generators_give_equal_intervals():
    values, groups = grouped(np.random.default_rng(3))
    one, two = (bootstrap_mean(values, groups, rng=np.random.default_rng(7)) for _ in range(2))
    assert one == two


def test_pairing_cancels_what_groups_do_to_both_sides():
    rng = np.random.default_rng(4)
    values, groups = grouped(rng, spread=10.0)
    treated = values + 0.3
    resampling = Resampling.over(groups, rng=rng, draws=500)
    found = paired_difference((treated, groups), (values, groups), resampling)
    assert found.value == pytest.approx(0.3) and found.high - found.low < 1e-9
    assert found.excludes(0) and found.low == pytest.approx(0.3)


def test_sums_of_the_first_draw_are_the_data_and_of_others_whole_groups():
    resampling = Resampling.over(["a", "b"], rng=np.random.default_rng(0), draws=50)
    sums = resampling.sums(np.array([[1.0], [10.0], [100.0]]), ["a", "b", "b"])
    assert sums[0, 0] == 111
    assert set(sums[1:, 0]) <= {2.0, 111.0, 220.0}


def test_the_log_ratio_is_antisymmetric_and_finite_without_events():
    assert log_ratio(8, 10, 2, 10) == pytest.approx(-log_ratio(2, 10, 8, 10))
    assert log_ratio(0, 10, 5, 10) == pytest.approx(np.log(0.5 / 5.5))
    assert np.isnan(log_ratio(1, 0, 1, 10))
    assert log_ratio(4000, 100, 1000, 100) == pytest.approx(np.log(4), abs=1e-3)


def test_a_ratio_with_nothing_below_is_not_a_number():
    assert np.isnan(ratio(np.array([1.0]), np.array([0.0])))[0]


def test_an_estimate_that_most_draws_lack_has_no_interval():
    resampling = Resampling.over(range(5), rng=np.random.default_rng(0), draws=100)
    found = resampling.estimate(np.r_[1.0, np.full(90, np.nan), np.ones(10)])
    assert found.value == 1 and found.interval is None and not found.excludes(5)


def test_wilson_equals_the_textbook_values():
    """Newcombe 1998, table I, method 3: 81/263, 15/148, 0/20, 1/29."""
    table = [(81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605), (0, 20, 0, 0.1611), (1, 29, 0.0061, 0.1718)]
    for successes, n, low, high in table:
        found = wilson(successes, n)
        assert (found.low, found.high) == pytest.approx((low, high), abs=5e-5)


def test_mistakes_are_named():
    rng = np.random.default_rng(0)
    with pytest.raises(DataError, match="nothing to resample"):
        bootstrap_mean([], [], rng=rng)
    with pytest.raises(SettingError, match="draws=3"):
        Resampling.over("ab", rng=rng, draws=3)
    with pytest.raises(DataError, match="not among the 2 resampled"):
        Resampling.over("ab", rng=rng, draws=10).positions("abc")
    with pytest.raises(ShapeError, match="values must be"):
        Resampling.over("ab", rng=rng, draws=10).sums(np.ones((3, 1)), "ab")
    with pytest.raises(DataError, match="3 successes of 2"):
        wilson(3, 2)
