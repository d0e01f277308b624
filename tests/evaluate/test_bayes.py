"""The bound for anchor `next`: better than chance, short of certainty, reproducible."""

from random import Random

import pytest

from overtone.core.errors import DataError
from overtone.data.countdown.problems import split_problems
from overtone.evaluate.bayes import next_step_bound

PROBLEMS = split_problems(held_out=True)


def test_what_is_drawn_after_the_state_cannot_be_foreseen_surely():
    bound = next_step_bound(PROBLEMS, rng=Random(0), n_traces=150, draws=50)
    assert {"reflection", "backtracking", "alternative", "confidence", "conclusion"} <= set(bound)
    for name in ("reflection", "backtracking", "alternative", "confidence"):
        assert 0.7 < bound[name].value < 0.999, name
        assert bound[name].low <= bound[name].value <= bound[name].high


def test_equal_seeds_give_equal_bounds():
    one, two = (next_step_bound(PROBLEMS, rng=Random(3), n_traces=30, draws=20) for _ in range(2))
    assert one == two


def test_there_must_be_problems():
    with pytest.raises(DataError, match="no problems"):
        next_step_bound([], rng=Random(0))
