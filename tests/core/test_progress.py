"""Progress passes items through and speaks on standard error only."""

import time

from overtone.core.progress import say, track, track_costs


def test_items_pass_through_unchanged_and_in_order(capsys):
    assert list(track(range(5), "counting", quiet=True)) == [0, 1, 2, 3, 4]
    assert capsys.readouterr() == ("", "")


def test_progress_goes_to_standard_error_and_ends_with_the_total(capsys):
    assert list(track(iter("abc"), "spelling", total=3, quiet=False)) == list("abc")
    said = capsys.readouterr()
    assert said.out == ""
    assert "spelling: 3/3" in said.err


def test_quiet_means_quiet(capsys):
    say("hello", quiet=True)
    say("there", quiet=False)
    assert capsys.readouterr().err == "there\n"


def test_items_that_differ_in_cost_are_named_as_they_begin(capsys):
    assert list(track_costs("ab", str.upper, {"a": 1.0, "b": 9.0}.get, quiet=True)) == ["a", "b"]
    assert capsys.readouterr().err == ""
    begun = track_costs("ab", str.upper, {"a": 1.0, "b": 9.0}.get, quiet=False)
    assert next(begun) == "a"
    assert capsys.readouterr().err == "A: 1/2 after 0 s, about 10 s left\n", "said before the work on it begins"


def test_the_time_left_goes_by_the_costs(capsys, monkeypatch):
    clock = iter([0.0, 0.0, 10.0])
    monkeypatch.setattr(time, "monotonic", lambda: next(clock))
    assert list(track_costs("ab", str.upper, {"a": 1.0, "b": 9.0}.get, quiet=False)) == ["a", "b"]
    assert "B: 2/2 after 10 s, about 90 s left" in capsys.readouterr().err


def test_nothing_to_do_says_nothing(capsys):
    assert list(track_costs([], str, float, quiet=False)) == [] and capsys.readouterr().err == ""
