"""The style ruler: linear between styles, honest about its ends, and steep in the generator."""

from random import Random

import pytest

from overtone.core.errors import DataError
from overtone.data.countdown.problems import split_problems
from overtone.evaluate.styles import StylePoint, generator_curve, style_equivalent

CURVE = (StylePoint("v0", 0.0, 100.0, 0.80), StylePoint("v1", 2.0, 140.0, 0.90), StylePoint("v2", 6.0, 200.0, 1.0))


def test_a_point_of_the_curve_is_its_own_equivalent():
    for place, point in enumerate(CURVE):
        found = style_equivalent(CURVE, point.reflection, tokens=point.tokens, accuracy=point.accuracy)
        assert (found.position, found.inside, found.excess_tokens, found.excess_accuracy) == (place, True, 0, 0)


def test_between_styles_the_ruler_is_linear_and_what_exceeds_it_is_the_side_effect():
    found = style_equivalent(CURVE, 4.0, tokens=200.0, accuracy=0.85)
    assert (found.position, found.tokens, found.accuracy) == (1.5, 170, pytest.approx(0.95))
    assert found.excess_tokens == 30 and found.excess_accuracy == pytest.approx(-0.10)


def test_beyond_the_ends_the_nearest_end_is_used_and_said():
    found = style_equivalent(CURVE, 9.0)
    assert (found.position, found.inside, found.tokens, found.excess_tokens) == (2, False, 200, None)


def test_a_curve_must_rise():
    with pytest.raises(DataError, match="must rise"):
        style_equivalent(CURVE[::-1], 1.0)


def test_careful_styles_reflect_more_write_more_and_solve_more():
    curve = generator_curve(split_problems(held_out=True), rng=Random(0), n_traces=150)
    assert [p.name for p in curve] == ["v0", "v1", "v2"]
    hasty, _, careful = curve
    assert careful.reflection > 6 * hasty.reflection
    assert careful.tokens > 1.3 * hasty.tokens and careful.accuracy > hasty.accuracy + 0.05
    with pytest.raises(DataError, match="no problems"):
        generator_curve([], rng=Random(0))
