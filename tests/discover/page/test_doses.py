"""Dose curves: random directions become one band, and ratios are those of the numbers shown."""

import pytest

from overtone.discover.page import sections as s
from overtone.discover.page.doses import cross_effects, span, with_one_band


def point(strength: float, own: float, other: float = 0.5, half: float = 0.01) -> s.DosePoint:
    rates = {"a": s.Estimate(own, own - half, own + half), "b": s.Estimate(other)}
    return s.DosePoint(strength, rates=rates, accuracy=s.Estimate(own))


def curve(*random: tuple[float, ...], edit: str = "add") -> dict:
    """A vector whose behaviour's share goes 0.1, 0.2, 0.6 over strengths -1, 0, 2, beside random directions."""
    steered = s.DoseSeries("v", "steered", (point(-1.0, 0.1), point(0.0, 0.2), point(2.0, 0.6, 0.25)))
    others = [
        s.DoseSeries(f"r{i}", "random", tuple(point(d, v) for d, v in zip((-1.0, 0.0, 2.0), values, strict=True)))
        for i, values in enumerate(random)
    ]
    return s.plain(s.DoseCurve("a", "residual.0", "norms", (steered, *others), edit))


def test_random_directions_are_joined_to_their_mean_and_their_whole_range():
    joined = with_one_band(curve((0.2, 0.2, 0.3), (0.1, 0.2, 0.2)))
    (band,) = [one for one in joined["series"] if one["role"] == "random"]
    assert band["name"] == "2 random directions"
    first = band["points"][0]
    assert first["strength"] == -1.0 and first["kl"] is None
    assert first["rates"]["a"] == pytest.approx({"value": 0.15, "low": 0.09, "high": 0.21})
    assert first["rates"]["b"] == {"value": 0.5, "low": 0.5, "high": 0.5}
    assert first["accuracy"]["value"] == pytest.approx(0.15)


def test_one_random_direction_stays_as_it_is():
    alone = curve((0.2, 0.2, 0.3))
    assert with_one_band(alone) == alone


def test_other_series_are_left_alone():
    before = curve((0.2, 0.2, 0.3), (0.1, 0.2, 0.2))
    assert with_one_band(before)["series"][0] == before["series"][0]
    assert len(before["series"]) == 3


def test_a_vector_is_compared_with_the_unsteered_share():
    (row,) = cross_effects([curve()])
    assert row["strength"] == 2.0
    assert {cell["behaviour"]: cell["ratio"] for cell in row["cells"]} == pytest.approx({"a": 3.0, "b": 0.5})


def test_scaled_vectors_and_vectors_without_an_unsteered_point_are_not_compared():
    lone = s.plain(s.DoseCurve("a", "residual.0", "norms", (s.DoseSeries("v", "steered", (point(1.0, 0.1),)),)))
    assert cross_effects([curve(edit="scale"), lone]) == []


def test_the_span_is_told_from_the_smallest_to_the_largest_strength():
    told = span(curve((0.2, 0.2, 0.3), (0.1, 0.2, 0.2)))
    assert told == pytest.approx({"low": -1.0, "high": 2.0, "at_low": 0.1, "at_high": 0.6, "ratio": 6.0, "random": 2.0})


def test_a_span_without_two_known_ends_is_not_told():
    assert span(s.plain(s.DoseCurve("a", "x", "norms", (s.DoseSeries("v", "steered", (point(1.0, 0.1),)),)))) is None
    assert span(s.plain(s.DoseCurve("a", "x", "norms", ()))) is None
    zero = s.DoseSeries("v", "steered", (point(-1.0, 0.0), point(1.0, 0.1)))
    assert span(s.plain(s.DoseCurve("a", "x", "norms", (zero,)))) is None
    assert span(curve())["random"] is None
