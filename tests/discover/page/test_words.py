"""How numbers are written."""

import pytest

from overtone.discover.page import words


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.9634, "0.963"),
        (0.81, "0.81"),
        (-0.0300001, "−0.03"),
        (131.04, "131"),
        (12.0, "12"),
        (1234567, "1\u202f234\u202f567"),
        (0, "0"),
        (1e-9, "1.0e−09"),
        (None, "–"),
        (float("nan"), "–"),
        (float("inf"), "–"),
        ("×5", "×5"),
    ],
)
def test_numbers_keep_three_digits_and_drop_idle_zeros(value, text):
    assert words.number(value) == text


@pytest.mark.parametrize(
    ("value", "text"), [(0.8123, "81.2\u202f%"), (1.0, "100\u202f%"), (-0.05, "−5.0\u202f%"), (None, "–")]
)
def test_shares_are_percentages(value, text):
    assert words.percent(value) == text


def test_an_estimate_without_interval_is_its_value():
    assert words.estimate({"value": 0.5, "low": None, "high": None}) == "0.5"
    assert words.estimate({"value": 0.5, "low": 0.4, "high": 0.61}) == "0.5 [0.4, 0.61]"
    assert (
        words.estimate({"value": 0.5, "low": 0.4, "high": 0.6}, words.percent)
        == "50.0\u202f% [40.0\u202f%, 60.0\u202f%]"
    )
    assert words.estimate(None) == words.estimate({"value": None}) == "–"


def test_strengths_carry_their_sign():
    assert [words.signed(v) for v in (-2.0, 0.0, 0.25)] == ["−2", "0", "+0.25"]


def test_durations_grow_into_minutes_and_hours():
    assert [words.duration(v) for v in (8.12, 121, 3840, None)] == ["8.1 s", "2 min 1 s", "1 h 4 min", "–"]


def test_numbers_to_compare_get_the_digits_that_tell_them_apart():
    assert words.apart(2.5730, 2.5664) == ["2.573", "2.566"]
    assert words.apart(0.92, 0.5) == ["0.92", "0.5"]
    assert words.apart(1.0, None) == ["1", words.NONE]


def test_a_token_of_line_breaks_can_be_read():
    assert [words.visible(t) for t in ("\n\n", " wait", "  ", ".\n")] == ["↵↵", "wait", "␣", ".↵"]


def test_long_decimals_in_a_note_are_rounded_and_short_ones_left():
    assert words.rounded("against 0.2598009835, p = 0.001 at -1.142") == "against 0.26, p = 0.001 at -1.142"
