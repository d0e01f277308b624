"""Labels keep their place: by trace and step, by row, and only names that exist."""

import pytest
import torch

from overtone.core.batch import Where
from overtone.core.errors import DataError, ShapeError
from overtone.data.countdown.problems import Problem
from overtone.interpret.labels.step_labels import StepLabels, label_all, plain_problem, step_texts


def where(document, step):
    return Where(torch.tensor(document), torch.zeros(len(step), dtype=torch.int64), torch.tensor(step))


def labels():
    return StepLabels(("a", "b"), (("a", None), ("b",)), 1, "hand", (3, 7))


def test_rows_find_their_label_by_document_and_step_in_any_order():
    assert labels().at(where([7, 3, 3, 3], [0, 1, 0, -1])) == ["b", None, "a", None]
    assert labels().flat() == ["a", None, "b"] and labels().counts() == {"a": 1, "b": 1}


@pytest.mark.parametrize(("document", "step"), [(4, 0), (7, 1)])
def test_a_row_that_was_not_labelled_is_an_error(document, step):
    with pytest.raises(DataError, match=f"step {step} of document {document} was not labelled"):
        labels().at(where([document], [step]))


def test_only_names_and_one_entry_per_trace():
    with pytest.raises(DataError, match=r"\['c'\] are not among a, b"):
        StepLabels(("a", "b"), (("c",),), 0, "hand", (0,))
    with pytest.raises(ShapeError, match="labels of 1 traces but 2 documents"):
        StepLabels(("a",), (("a",),), 0, "hand", (0, 1))


def test_texts_and_failures(spoken):
    traces = [spoken.trace(["one two", " three"], 5)]
    assert list(step_texts(traces, spoken.spans(traces), spoken.decode)) == [["one two", "three"]]
    made = label_all(traces, ["a"], [["a", None]], source="hand")
    assert (made.failures, made.documents, made.labels) == (1, (5,), (("a", None),))
    with pytest.raises(ShapeError, match="1 traces but spans of 0"):
        list(step_texts(traces, [], spoken.decode))


def test_a_problem_is_read_from_plain_data():
    wanted = Problem((4, 6, 9), 30, "plain")
    plain = {"numbers": [9, 4, 6], "target": 30}
    assert plain_problem({"problem": wanted}) == plain_problem({"problem": plain}) == plain_problem(plain) == wanted
    assert plain_problem({**plain, "kind": "sums", "prompt": "x"}).kind == "sums"
    with pytest.raises(DataError, match="no Countdown problem"):
        plain_problem({"prompt": "x"})
