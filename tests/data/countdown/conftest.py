"""Traces that the policy wrote, once for all tests of the language."""

from random import Random

import pytest

from overtone.data.countdown.policy import write_trace
from overtone.data.countdown.problems import KINDS, all_problems


@pytest.fixture(scope="session")
def write():
    """write(n, kind="plain", seed=0, **options) -> n traces on problems drawn at random."""
    pools = {kind: list(all_problems(kind)) for kind in KINDS}

    def draw(n, kind="plain", seed=0, **options):
        rng, traces = Random(seed), []
        while len(traces) < n:
            trace = write_trace(rng.choice(pools[kind]), rng, **options)
            if trace is not None:  # the search ran out of moves, which is rare
                traces.append(trace)
        return traces

    return draw


@pytest.fixture(scope="session")
def seen(write):
    """600 traces as the model is trained on them: two in three plain, the rest sums."""
    return write(400) + write(200, "sums", seed=1)


@pytest.fixture(scope="session")
def forecast(write):
    """300 plain traces with the chances that each step had."""
    return write(300, seed=2, forecast=True)
