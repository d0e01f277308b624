"""Progress passes items through and speaks on standard error only."""

from overtone.core.progress import say, track


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
