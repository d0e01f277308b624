"""Contexts: the strongest places first, the right tokens, steps and tokens alike."""

import numpy as np
import pytest
import torch

from overtone.core.batch import Where
from overtone.core.errors import DataError, SettingError
from overtone.data.traces import ReasoningTrace, StepSpan
from overtone.interpret.contexts import ContextFinder

# Two traces: prompt "P P |", steps of two tokens each, ended by token 0 ("|").
TRACES = [
    ReasoningTrace((9, 9, 0), (1, 2, 0, 3, 4, 0, 5, 6), 0, "g"),
    ReasoningTrace((9, 9, 0), (7, 8, 0, 1, 2), 4, "h"),
]
SPANS = {
    0: [StepSpan(0, 3, 5, 2, 5), StepSpan(1, 6, 8, 5, 8), StepSpan(2, 9, 11, 8, 10)],
    4: [StepSpan(0, 3, 5, 2, 5), StepSpan(1, 6, 8, 5, 7)],
}
WHERE = Where(torch.tensor([0, 0, 0, 4, 4]), torch.tensor([5, 8, 10, 5, 7]), torch.tensor([0, 1, 2, 0, 1]))
CODES = np.array([[1.0, 0], [3.0, 0], [-5.0, 0], [2.0, 0], [0, 0]])


def finder(codes=CODES, where=WHERE, spans=SPANS):
    return ContextFinder(codes, where, TRACES, spans, "|abcdefghP".__getitem__)


def test_contexts_come_strongest_first_one_per_trace():
    first, second = finder().top(0)
    assert (first.value, first.origin.document, first.origin.step) == (-5, 0, 2)
    assert (second.value, second.origin.document, second.origin.step) == (2, 4, 0)
    assert [c.value for c in finder().top(0, per_document=3)] == [-5, 3, 2, 1]
    assert [c.value for c in finder().top(0, 2, per_document=3)] == [-5, 3]


def test_a_side_can_be_asked_for():
    assert [c.value for c in finder().top(0, side=1, per_document=3)] == [3, 2, 1]
    assert [c.value for c in finder().top(0, side=-1)] == [-5]


def test_a_step_is_shown_with_what_surrounds_it_and_its_value_on_all_its_tokens():
    (context,) = finder().top(0, 1, side=1, around=2)
    assert context.text == "b|cd|e" and context.origin.start == 4
    assert context.activations == (1, 0, 3, 3, 0, -5)  # neighbouring steps keep their own values
    assert context.peak == 2 and context.tokens[context.peak] == "c"
    (alone,) = finder().top(0, 1, side=1, around=0)
    assert alone.active_text == "cd"


def test_the_window_ends_with_the_trace():
    context = finder().top(0, 1, around=100)[0]
    assert context.text == "PP|ab|cd|ef" and context.origin.start == 0


def test_rows_that_are_tokens_are_single_places():
    where = Where(torch.tensor([0, 0]), torch.tensor([4, 6]), torch.tensor([-1, -1]))
    (context,) = finder(np.array([[1.0], [2.0]]), where, {}).top(0, around=3)
    assert context.text == "ab|cd|e" and context.activations == (0, 1, 0, 2, 0, 0, 0) and context.peak == 3


def test_a_latent_that_never_fires_has_no_context():
    assert finder().top(1) == ()


def test_mistakes_are_named():
    with pytest.raises(SettingError, match="latents 0 to 1"):
        finder().top(2)
    with pytest.raises(DataError, match="step 2 of document 0 has no span"):
        finder(spans={4: SPANS[4]}).top(0)
    with pytest.raises(DataError, match="document 4, whose trace was not given"):
        ContextFinder(CODES, WHERE, TRACES[:1], SPANS, str).top(0)
