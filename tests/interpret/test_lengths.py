"""Length structure: means by hand, and random firing has no excess although long traces give more chances."""

import numpy as np
import pytest

from overtone.core.errors import DataError
from overtone.interpret.lengths import length_profile


def test_each_trace_counts_once_for_a_latent():
    codes = np.array([[1.0, 0], [1, 0], [0, 1], [1, 1]])
    found = length_profile(codes, [5, 5, 5, 8], {5: 30.0, 8: 10.0}, n_min=1)
    assert found.mean_length.tolist() == [20, 20] and found.overall == 20
    assert length_profile(codes[:3], [5, 5, 8], {5: 30.0, 8: 10.0}, n_min=1).mean_length.tolist() == [30, 10]


def simulated(rng, firing):
    """400 traces of 2 to 20 steps; firing(steps of the trace, number of rows) -> chance per row."""
    steps = rng.integers(2, 21, 400)
    document = np.repeat(np.arange(400), steps)
    codes = (rng.random((len(document), 3)) < firing(np.repeat(steps, steps)[:, None])).astype(float)
    return length_profile(codes, document, {i: float(s) for i, s in enumerate(steps)})


def test_random_firing_is_found_in_long_traces_but_has_no_excess():
    found = simulated(np.random.default_rng(0), lambda length: np.full((len(length), 3), 0.05))
    assert (found.mean_length > found.overall + 1).all()
    assert abs(found.excess).max() < 1


def test_latents_of_long_and_of_short_traces_are_told_apart():
    found = simulated(np.random.default_rng(0), lambda n: np.where([[True, False, True]], n / 100, 0.2 - n / 110))
    assert found.sides() == ["long", "short", "long"]


def test_a_rare_latent_is_on_no_side_and_a_trace_needs_a_length():
    codes = np.array([[1.0], [0]])
    assert length_profile(codes, [0, 1], {0: 1.0, 1: 2.0}).sides() == [None]
    with pytest.raises(DataError, match="such as trace 1"):
        length_profile(codes, [0, 1], {0: 1.0})
