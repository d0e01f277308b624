"""Positions: which tokens of a trace become rows, and where each row is reported."""

import pytest

from overtone.activations.positions import AllTokens, LastToken, Pooled, StepAnchor
from overtone.core.errors import SettingError
from overtone.data.traces import Delimiters, ReasoningTrace

CUT = 9
#                        0  1  2    3  4  5  6  7    8  9    10 11
TRACE = ReasoningTrace((1, 2, CUT), (3, 4, 5, 6, 7, CUT, 8, CUT, 3), 0, "g")
STEPS = frozenset([CUT])


def rows(positions, trace=TRACE):
    picks = positions.select(trace)
    parts = picks.positions.split(picks.lengths.tolist()) if len(picks) else ()
    return [(p.tolist(), t, s) for p, t, s in zip(parts, picks.token.tolist(), picks.step.tolist(), strict=True)]


@pytest.mark.parametrize(
    ("anchor", "expected"),
    [
        ("next", [([2], 2, 0), ([8], 8, 1), ([10], 10, 2)]),
        ("prev", [([8], 8, 0), ([10], 10, 1), ([11], 11, 2)]),
        ("mean", [([3, 4, 5, 6, 7], 7, 0), ([9], 9, 1), ([11], 11, 2)]),
        ("first_k", [([3, 4], 4, 0), ([9], 9, 1), ([11], 11, 2)]),
    ],
)
def test_each_anchor_reads_its_tokens_of_every_step(anchor, expected):
    assert rows(StepAnchor(anchor, STEPS, k=2)) == expected


def test_a_step_that_nothing_precedes_has_no_next_row_but_keeps_the_number_of_the_others():
    document = ReasoningTrace((), (3, CUT, 4), 0, "g")
    assert rows(StepAnchor("next", STEPS), document) == [([1], 1, 1)]
    assert rows(StepAnchor("prev", STEPS), document) == [([1], 1, 0), ([2], 2, 1)]


def test_only_the_think_section_is_read_when_it_is_named():
    trace = ReasoningTrace((1, 20), (3, CUT, 4, 21, 5, CUT), 0, "g")
    assert rows(StepAnchor("mean", STEPS, think=(20, 21)), trace) == [([2], 2, 0), ([4], 4, 1)]


@pytest.mark.parametrize(
    ("part", "expected"),
    [("all", [0, 1, 3, 4, 5, 6, 7, 9, 11]), ("prompt", [0, 1]), ("response", [3, 4, 5, 6, 7, 9, 11])],
)
def test_all_tokens_of_a_part_but_the_skipped_ids_give_a_row_each(part, expected):
    assert rows(AllTokens(STEPS, part)) == [([i], i, -1) for i in expected]


def test_the_last_ordinary_token_and_the_pooled_part_give_one_row_each():
    assert rows(LastToken()) == [([11], 11, -1)]
    assert rows(LastToken("prompt", skip_special=STEPS)) == [([1], 1, -1)]
    assert rows(Pooled("max", "prompt")) == [([0, 1, 2], 2, -1)]
    assert Pooled("max").reduce == "max"


def test_a_part_without_ordinary_tokens_gives_no_row():
    empty = ReasoningTrace((1,), (), 0, "g")
    for positions in (
        LastToken("response"),
        Pooled("mean", "response"),
        AllTokens(part="response"),
        StepAnchor("prev", STEPS),
    ):
        assert rows(positions, empty) == []


def test_rules_that_select_differently_are_described_differently():
    rules = [
        AllTokens(), AllTokens([1]), AllTokens(part="prompt"), LastToken(), LastToken("prompt"), Pooled(),
        Pooled("max"),
        *(StepAnchor(a, STEPS) for a in ("next", "prev", "mean", "first_k")), StepAnchor("first_k", STEPS, k=2),
        StepAnchor("next", frozenset([8])), StepAnchor("next", Delimiters([CUT], special=[0])),
        StepAnchor("next", STEPS, think=(None, 3)), StepAnchor("next", STEPS, think=(3, None)),
    ]  # fmt: skip
    described = [str(rule.describe()) for rule in rules]
    assert len(set(described)) == len(rules)
    assert StepAnchor("next", STEPS, k=2).describe() == StepAnchor("next", STEPS).describe()  # k plays no part there


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (lambda: StepAnchor("nex", STEPS), "Did you mean 'next'"),
        (lambda: StepAnchor("first_k", STEPS, k=0), "k >= 1"),
        (lambda: StepAnchor("next", frozenset()), "delimiters is empty"),
        (lambda: AllTokens(part="promt"), "Did you mean 'prompt'"),
        (lambda: LastToken("x"), "Use one of all, prompt, response"),
        (lambda: Pooled("median"), "'mean' or 'max'"),
    ],
)
def test_rules_that_make_no_sense_are_refused(wrong, message):
    with pytest.raises(SettingError, match=message):
        wrong()
