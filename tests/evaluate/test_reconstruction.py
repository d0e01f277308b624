"""Reconstruction measures against scikit-learn and by hand."""

import numpy as np
import pytest
import torch
from sklearn.metrics import r2_score

from overtone.core.errors import DataError, ShapeError
from overtone.dictionaries.codes import SparseCodes
from overtone.evaluate.reconstruction import dead_share, fvu, l0, mean_cosine, reconstruction


def test_fvu_is_zero_when_perfect_one_for_the_mean_and_one_minus_r2_between(generator):
    x = torch.randn(50, 6, generator=generator)
    x_hat = x + 0.3 * torch.randn(50, 6, generator=generator)
    assert fvu(x, x) == 0
    assert fvu(x, x.mean(0).expand_as(x)) == pytest.approx(1)
    assert 1 - fvu(x, x_hat) == pytest.approx(r2_score(x, x_hat, multioutput="variance_weighted"), abs=1e-6)
    assert fvu(x, -9 * x) > 1


def test_fvu_does_not_change_when_everything_is_shifted_and_scaled(generator):
    x, x_hat = torch.randn(2, 50, 6, generator=generator, dtype=torch.float64)
    assert fvu(5 * x + 3, 5 * x_hat + 3) == pytest.approx(fvu(x, x_hat))


def test_the_cosine_counts_rows_without_direction_as_zero():
    assert mean_cosine(np.array([[1.0, 0], [0, 2.0]]), np.array([[3.0, 0], [0, 0]])) == 0.5


def test_l0_and_dead_latents_count_signed_codes_and_skip_unused_slots():
    values = torch.tensor([[1.0, -2.0], [0.5, 0.0]])
    codes = SparseCodes(values, torch.tensor([[3, 1], [3, 0]]), 8)
    assert (l0(codes), dead_share(codes)) == (1.5, 0.75)
    assert (l0(codes.dense()), dead_share(codes.dense())) == (1.5, 0.75)


def test_all_measures_together():
    x = torch.eye(4)
    found = reconstruction(x, x, torch.eye(4))
    assert (found.fvu, found.cosine, found.l0, found.dead_share, found.n_rows) == (0, 1, 1, 0, 4)


def test_mistakes_are_named():
    with pytest.raises(ShapeError, match="must both be"):
        fvu(np.ones((3, 2)), np.ones((3, 1)))
    with pytest.raises(ShapeError, match="1 row"):
        fvu(np.ones((1, 2)), np.ones((1, 2)))
    with pytest.raises(DataError, match="no variance"):
        fvu(np.ones((3, 2)), np.ones((3, 2)))
    with pytest.raises(DataError, match="NaN"):
        mean_cosine(np.full((3, 2), np.nan), np.ones((3, 2)))
