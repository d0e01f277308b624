"""Scaling: the units it promises, an inverse, and independence of the units the rows came in."""

import json

import pytest
import torch

from overtone.activations.array import ArraySource
from overtone.activations.scaling import KINDS, Scaling, statistics_of
from overtone.core.errors import DataError, SettingError, ShapeError


@pytest.fixture
def rows(generator):
    return 5 * torch.randn(500, 12, generator=generator) * torch.linspace(0.1, 4, 12) + torch.arange(12.0)


@pytest.mark.parametrize("kind", KINDS)
def test_invert_undoes_apply(rows, kind):
    scaling = Scaling.fit(rows, kind)
    torch.testing.assert_close(scaling.invert(scaling.apply(rows)), rows, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(scaling.apply(scaling.invert(rows)), rows, rtol=1e-5, atol=1e-5)


def test_none_returns_the_rows_bit_for_bit(rows):
    scaling = Scaling.fit(rows, "none")
    assert torch.equal(scaling.apply(rows), rows) and torch.equal(scaling.invert(rows), rows)


def test_scale_makes_the_mean_squared_norm_equal_the_width_and_keeps_directions(rows):
    scaled = Scaling.fit(rows, "scale").apply(rows)
    assert float(scaled.square().sum(1).mean()) == pytest.approx(12, rel=1e-5)
    torch.testing.assert_close(torch.cosine_similarity(scaled, rows), torch.ones(500))


def test_standardise_gives_every_coordinate_mean_zero_and_variance_one(rows):
    scaled = Scaling.fit(rows, "standardise").apply(rows)
    torch.testing.assert_close(scaled.mean(0), torch.zeros(12), atol=1e-5, rtol=0)
    torch.testing.assert_close(scaled.var(0, correction=0), torch.ones(12), atol=1e-4, rtol=0)


def test_a_constant_coordinate_is_centred_and_not_blown_up(rows):
    rows[:, 3] = 7.1
    scaled = Scaling.fit(rows, "standardise").apply(rows)
    torch.testing.assert_close(scaled[:, 3], torch.zeros(500), atol=1e-5, rtol=0)


@pytest.mark.parametrize("kind", ["scale", "standardise"])
@pytest.mark.parametrize("c", [1e-3, 250.0])
def test_the_units_of_the_rows_do_not_matter(rows, kind, c):
    torch.testing.assert_close(
        Scaling.fit(c * rows, kind).apply(c * rows), Scaling.fit(rows, kind).apply(rows), rtol=1e-4, atol=1e-4
    )


def test_fitting_on_a_source_equals_fitting_on_its_rows(rows):
    from_source, from_rows = Scaling.fit(ArraySource(rows)), Scaling.fit(rows)
    torch.testing.assert_close(from_source.factor, from_rows.factor)


def test_a_scaling_survives_json(rows):
    scaling = Scaling.fit(rows, "standardise")
    again = Scaling.from_dict(json.loads(json.dumps(scaling.to_dict())))
    assert torch.equal(again.apply(rows), scaling.apply(rows))


def test_dtype_and_leading_shape_are_kept(rows):
    scaling = Scaling.fit(rows)
    assert scaling.apply(rows.bfloat16()).dtype == torch.bfloat16
    assert scaling.apply(rows.view(50, 10, 12)).shape == (50, 10, 12)


def test_statistics_are_those_of_numpy(rows):
    known, x = statistics_of(rows), rows.numpy().astype("float64")
    torch.testing.assert_close(known.mean.numpy(), x.mean(0))
    torch.testing.assert_close(known.variance.numpy(), x.var(0))
    assert known.mean_norm == pytest.approx((x**2).sum(1).__pow__(0.5).mean())
    assert known.count == 500


@pytest.mark.parametrize(
    ("bad", "kind", "error", "message"),
    [
        (torch.zeros(4, 3), "scale", DataError, "all 4 rows are zero"),
        (torch.full((4, 3), torch.nan), "scale", DataError, "4 of 4 rows hold NaN"),
        (torch.zeros(0, 3), "scale", DataError, "no rows"),
        (torch.ones(4, 3), "scal", SettingError, "Did you mean 'scale'"),
    ],
)
def test_what_cannot_be_fitted_is_refused(bad, kind, error, message):
    with pytest.raises(error, match=message):
        Scaling.fit(bad, kind)


def test_another_width_is_refused(rows):
    with pytest.raises(ShapeError, match="fitted on width 12"):
        Scaling.fit(rows).apply(torch.ones(2, 5))
