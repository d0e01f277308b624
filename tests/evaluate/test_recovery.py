"""Planted atoms are found however they are ordered and scaled, and only then."""

import numpy as np
import pytest

from overtone.core.errors import ShapeError
from overtone.evaluate.recovery import planted_recovery


def test_recovery_ignores_order_scale_sign_and_extra_atoms():
    rng = np.random.default_rng(0)
    truth = rng.normal(size=(10, 32))
    learned = np.concatenate([rng.normal(size=(5, 32)), -3 * truth[rng.permutation(10)]])
    found = planted_recovery(learned, truth)
    assert found.share == 1 and found.mmcs == pytest.approx(1)
    assert planted_recovery(learned, truth, signed=True).share == 0


def test_random_atoms_recover_nothing():
    rng = np.random.default_rng(0)
    found = planted_recovery(rng.normal(size=(128, 64)), rng.normal(size=(96, 64)))
    assert found.share == 0 and 0.2 < found.mmcs < 0.6


def test_the_share_counts_what_is_above_the_threshold():
    truth = np.eye(3)
    learned = np.array([[1, 0, 0], [0, 1, 1.0]])
    found = planted_recovery(learned, truth, threshold=0.9)
    assert found.best == pytest.approx((1, 0.5**0.5, 0.5**0.5)) and found.share == pytest.approx(1 / 3)


def test_dead_atoms_match_nothing_and_widths_must_agree():
    assert planted_recovery(np.zeros((2, 3)), np.eye(3)).mmcs == 0
    with pytest.raises(ShapeError, match="one width"):
        planted_recovery(np.eye(4), np.eye(3))
