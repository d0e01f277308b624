"""When: clauses meet, exclusion wins, padding never, and a cached pass sees what an uncached one sees."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from overtone.core.errors import SettingError, ShapeError
from overtone.models.hooks import Call
from overtone.steering.when import When

PAD, OPEN, CLOSE, STOP = 0, 1, 2, 9


def call(rows, prompt, start=0, real=None):
    tokens = torch.tensor(rows)
    return Call(tokens, tokens != PAD if real is None else real, start, prompt)


def columns(when, rows, prompt, **options):
    """For each row, the columns where the clause holds."""
    return [m.nonzero()[:, 0].tolist() for m in when.mask(call(rows, prompt, **options))]


ROW = [[0, 9, 5, 9, 5, 9, 9, 6]]  # one column of padding, a prompt up to the delimiter in column 3


@pytest.mark.parametrize(
    ("when", "expected"),
    [
        (When(), [4, 5, 6, 7]),
        (When(phases={"prompt"}), [1, 2, 3]),
        (When(phases={"prompt", "generation"}), [1, 2, 3, 4, 5, 6, 7]),
        (When(after=frozenset({STOP})), [5, 6]),
        (When(after=frozenset({STOP}), include_prompt_end=True), [3, 5, 6]),
        (When(after=frozenset({5}), include_prompt_end=True), [4]),
        (When(phases={"prompt", "generation"}, after=frozenset({STOP})), [1, 3, 5, 6]),
        (When(after=frozenset({5, 6})), [4, 7]),
        (When(first_generated=2), [4, 5]),
        (When(first_generated=2, include_prompt_end=True), [3, 4]),
        (When(positions=frozenset({0, 4}), phases={"prompt", "generation"}), [1, 5]),
        (When(not_tokens=frozenset({STOP})), [4, 7]),
        (When(after=frozenset({STOP}), not_tokens=frozenset({STOP})), []),
        (When(predicates=(lambda c: c.tokens[:, c.start :] > 5,)), [5, 6, 7]),
        (When(unless=(lambda c: c.tokens[:, c.start :] > 5,)), [4]),
    ],
)
def test_where_each_clause_holds(when, expected):
    assert columns(when, ROW, 4) == [expected]


def test_padding_is_never_edited_on_either_side():
    everything = When(phases={"prompt", "generation"})
    assert columns(everything, [[0, 0, 5, 6], [5, 6, 0, 0]], 2) == [[2, 3], [0, 1]]


@pytest.mark.parametrize(
    ("marks", "rows", "expected"),
    [
        ((OPEN, CLOSE), [5, 1, 9, 5, 2, 9], [2, 3]),
        ((OPEN, CLOSE), [5, 9, 5, 9, 5, 9], []),
        ((OPEN, CLOSE), [1, 9, 2, 9, 1, 9], [1, 5]),
        ((None, CLOSE), [5, 9, 5, 2, 5, 9], [0, 1, 2]),
        ((OPEN, None), [5, 1, 5, 2, 5, 9], [2, 3, 4, 5]),
    ],
)
def test_the_think_section_begins_after_its_mark_and_ends_before_the_other(marks, rows, expected):
    assert columns(When(phases={"prompt", "generation"}, only_think=marks), [rows], 0) == [expected]


def test_a_think_section_that_the_prompt_opened_is_open():
    assert columns(When(after=frozenset({9}), only_think=(OPEN, CLOSE)), [[5, 1, 9, 5, 9, 2, 9]], 2) == [[2, 4]]


@pytest.mark.parametrize(
    "clause",
    [{"phases": set()}, {"after": frozenset()}, {"positions": frozenset()}, {"first_generated": 0},
     {"only_think": (None, None)}, {"phases": {"answer"}}],
)  # fmt: skip
def test_a_clause_that_could_never_hold_is_an_error(clause):
    with pytest.raises(SettingError):
        When(**clause)


def test_a_predicate_must_answer_for_the_columns_of_the_pass():
    with pytest.raises(ShapeError, match=r"expected bool of shape \(1, 8\)"):
        When(predicates=(lambda c: c.real[:, :2],)).mask(call(ROW, 4))


WHENS = st.builds(
    When,
    phases=st.sets(st.sampled_from(["prompt", "generation"]), min_size=1),
    include_prompt_end=st.booleans(),
    after=st.none() | st.frozensets(st.integers(1, 9), min_size=1, max_size=3),
    only_think=st.sampled_from([None, (OPEN, CLOSE), (None, CLOSE), (OPEN, None)]),
    first_generated=st.none() | st.integers(1, 4),
    positions=st.none() | st.frozensets(st.integers(0, 9), min_size=1, max_size=4),
    not_tokens=st.frozensets(st.integers(1, 9), max_size=2),
)


@settings(max_examples=80, deadline=None)
@given(
    when=WHENS,
    rows=st.lists(st.lists(st.integers(1, 9), min_size=8, max_size=8), min_size=1, max_size=3),
    padding=st.integers(0, 3),
    prompt=st.integers(4, 7),
)
def test_column_by_column_equals_all_at_once(when, rows, padding, prompt):
    tokens = torch.tensor(rows)
    tokens[0, :padding] = PAD
    real = tokens != PAD
    whole = when.mask(Call(tokens, real, 0, prompt))
    for seen in range(1, 9):
        newest = when.mask(Call(tokens[:, :seen], real[:, :seen], seen - 1, prompt))
        assert torch.equal(newest[:, 0], whole[:, seen - 1])


def test_a_clause_describes_itself_in_plain_data():
    assert When(after=frozenset({9, 3}), only_think=(None, 2)).describe()["after"] == [3, 9]
