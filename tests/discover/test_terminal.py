"""The tables at the end of a run."""

import io

import pytest
from rich.console import Console

import page_example
from overtone.discover import terminal


def printed(report: dict, width: int) -> str:
    console = Console(file=io.StringIO(), width=width, highlight=False)
    for table in terminal.tables(report, width):
        console.print(table)
    return console.file.getvalue()


@pytest.mark.parametrize("width", [80, 100, 160])
def test_numbers_and_names_are_whole_at_every_width(width):
    text = printed(page_example.example(), width)
    assert "…" not in text
    assert max(map(len, text.splitlines())) <= width
    assert all(word in text for word in ("0.963", "AUROC", "backtracking", "not testable", "58.6 to 166.9 steps"))


def test_a_wide_terminal_shows_intervals_and_a_narrow_one_leaves_them_out():
    assert "[0.955, 0.971]" in printed(page_example.example(), 100)
    assert "[0.955, 0.971]" not in printed(page_example.example(), 80)


def test_doses_are_listed_from_the_most_suppressing_to_the_most_amplifying():
    curve = page_example.example()["doses"][0]
    table = terminal.dose_table([curve])
    assert list(table.columns[1].cells) == ["−4", "−2", "0", "+2", "+4"]


def test_sections_that_are_missing_have_no_table():
    report = page_example.example()
    assert [t.title for t in terminal.tables({"findings": report["findings"]})] == ["Findings"]
    assert list(terminal.tables({"title": "nothing"})) == []


def test_brackets_in_a_claim_are_text_not_markup():
    finding = {**page_example.example()["findings"][0], "claim": "the [bold]claim[/bold] [x]"}
    assert "the [bold]claim[/bold] [x]" in printed({"findings": [finding]}, 160)
