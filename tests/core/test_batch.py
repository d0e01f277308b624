"""Batches keep rows and their origins together, and NaN is named."""

import pytest
import torch

from overtone.core.batch import ActivationBatch, Where, require_finite
from overtone.core.errors import DataError, ShapeError
from overtone.core.sites import Site

SITE = Site("residual", 1)


def batch(n=5):
    index = torch.arange(n)
    return ActivationBatch({SITE: torch.randn(n, 3)}, Where(index, index * 2, index - 1), weights=torch.rand(n))


def test_selecting_rows_selects_everything_about_them():
    whole, rows = batch(), torch.tensor([3, 1])
    part = whole.select(rows)
    torch.testing.assert_close(part.at(SITE), whole.at(SITE)[rows])
    assert part.where.token.tolist() == [6, 2]
    torch.testing.assert_close(part.weights, whole.weights[rows])


def test_a_site_that_was_not_collected_is_named():
    with pytest.raises(DataError, match=r"residual\.1; mlp_out\.0 was not collected"):
        batch().at(Site("mlp_out", 0))


def test_rows_without_origin_are_refused():
    with pytest.raises(ShapeError, match=r"expected \(2, width\)"):
        ActivationBatch({SITE: torch.zeros(3, 4)}, batch(2).where)


def test_targets_and_gradients_of_other_rows_or_widths_are_refused():
    x, where = {SITE: torch.zeros(3, 4)}, batch(3).where
    for g in (torch.zeros(3, 5), torch.zeros(2, 4)):
        with pytest.raises(ShapeError, match=r"gradients at .*expected \(3, 4\) as the states"):
            ActivationBatch(x, where, g={SITE: g})
    with pytest.raises(ShapeError, match=r"targets at .*expected \(3, width\), got \(2, 7\)"):
        ActivationBatch(x, where, y={SITE: torch.zeros(2, 7)})
    ActivationBatch(x, where, y={SITE: torch.zeros(3, 7)}, g={SITE: torch.zeros(3, 4)})


def test_the_first_bad_row_is_named():
    x = torch.zeros(4, 2)
    x[2, 1] = torch.nan
    with pytest.raises(DataError, match=r"1 of 4 rows.*row 2"):
        require_finite(x, "states")
    assert require_finite(x[:2], "states").shape == (2, 2)
