"""Rows of outcomes: what the parser says of written traces, columns that are refused, and a round trip."""

from random import Random

import numpy as np
import pyarrow as pa
import pytest

from overtone.core.errors import DataError
from overtone.data.countdown.policy import write_trace
from overtone.data.countdown.problems import split_problems
from overtone.evaluate.outcomes import Outcomes, countdown_outcome, labelled_outcome

PROBLEM = split_problems(held_out=True)[5]


def written(seed=0, style=None):
    rng = Random(seed)
    while (trace := write_trace(PROBLEM, rng, style=style)) is None:
        pass
    return trace


def row(trace, **options):
    return countdown_outcome([s.text for s in trace.steps], PROBLEM, **{"dose": 0.0, "tokens": 99, **options})


def test_a_written_trace_is_counted_step_by_step_and_checked():
    for seed in range(20):
        trace = written(seed)
        made = row(trace)
        counts = {k.removeprefix("count."): v for k, v in made.items() if k.startswith("count.")}
        assert sum(counts.values()) == made["steps"] == len(trace.steps) == made["legal"]
        assert counts["reflection"] == sum(s.behaviour == "reflection" for s in trace.steps)
        assert made["unknown"] == 0 and made["finished"] and made["correct"] is trace.correct
        assert made["false_success"] is not trace.correct
        assert 0 < made["arithmetic_valid"] <= made["arithmetic_total"]


def test_a_trace_that_was_cut_off_is_neither_finished_nor_right():
    made = row(written(1), ended=False)
    assert not (made["finished"] or made["correct"] or made["false_success"])


def test_damaged_steps_are_unknown():
    made = countdown_outcome(["we plus banana .", "so what"], PROBLEM, dose=1.0, tokens=5)
    assert (made["unknown"], made["steps"], made["arithmetic_total"], made["finished"]) == (2, 2, 0, False)


def test_labels_alone_make_a_row_whose_rest_is_not_known():
    made = labelled_outcome(["a", None, "a"], ["a", "b"], problem="q", dose=2.0, tokens=30)
    table = Outcomes.from_rows([made])
    assert table.behaviours == ("a", "b")
    assert [table.values[n][0] for n in ("count.a", "count.b", "unknown", "steps")] == [2, 0, 1, 3]
    assert all(np.isnan(table.values[n][0]) for n in ("correct", "finished", "legal", "arithmetic_total", "kl"))


def test_columns_make_a_round_trip_through_an_arrow_table():
    table = Outcomes.from_rows([row(written(s), dose=d) for s in range(3) for d in (-1.0, 0.0)])
    again = Outcomes.from_columns(pa.table(table.to_columns()))
    assert again.problem == table.problem and again.doses == (-1.0, 0.0)
    for name, column in table.values.items():
        np.testing.assert_array_equal(again.values[name], column)
    assert len(again.at(-1.0).problem) == 3


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"count.a": None}, "count.<behaviour>"),
        ({"dose": None}, r"missing: \['dose'\]"),
        ({"colour": [1, 2]}, r"unknown: \['colour'\]"),
        ({"tokens": [1]}, "equal length"),
        ({"count.a": [1, -2]}, "negative"),
        ({"problem": [], "dose": [], "steps": [], "count.a": []}, "at least one row"),
    ],
)
def test_bad_columns_are_refused(change, said):
    columns = {"problem": ["p", "q"], "dose": [0, 1], "steps": [3, 3], "count.a": [1, 2]} | change
    with pytest.raises(DataError, match=said):
        Outcomes.from_columns({k: v for k, v in columns.items() if v is not None})


def test_a_dose_that_was_not_run_is_named():
    with pytest.raises(DataError, match="no trace has dose 3; there are doses 0"):
        Outcomes.from_rows([row(written())]).at(3)
