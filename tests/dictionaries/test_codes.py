"""Sparse codes and supports are exact forms of dense ones."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from overtone.core.errors import ShapeError
from overtone.dictionaries import codes
from overtone.dictionaries.codes import SparseCodes, Support
from overtone.training.step import active_rows


def sparse_matrix(rows: int, latents: int, active: int, seed: int) -> torch.Tensor:
    """Signed values at `active` random places of each row, the rest zero; some rows empty."""
    generator = torch.Generator().manual_seed(seed)
    z = torch.randn(rows, latents, generator=generator)
    keep = torch.rand(rows, latents, generator=generator).argsort(1).argsort(1) < active
    return z * keep * (torch.rand(rows, 1, generator=generator) > 0.2)


matrices = st.builds(sparse_matrix, st.integers(0, 6), st.integers(1, 9), st.integers(0, 9), st.integers(0, 99))


@settings(deadline=None)
@given(matrices)
def test_dense_to_sparse_and_back_loses_nothing(z):
    codes = SparseCodes.from_dense(z)
    assert torch.equal(codes.dense(), z)
    assert torch.equal(codes.counts(), (z != 0).sum(1))


@settings(deadline=None)
@given(matrices)
def test_a_support_gives_the_codes_of_its_mask(z):
    support = Support.from_mask(z != 0)
    assert torch.equal(support.codes(support.take(z)).dense(), z)


@settings(deadline=None)
@given(matrices, st.integers(1, 3))
def test_supports_of_parts_join_to_the_support_of_the_whole(z, size):
    parts = [Support.from_mask(part != 0) for part in z.split(size)]
    if parts:
        joined, whole = Support.joined(parts), Support.from_mask(z != 0)
        assert torch.equal(joined.rows, whole.rows) and torch.equal(joined.latents, whole.latents)
        assert joined.n_rows == len(z)


@settings(deadline=None)
@given(matrices)
def test_the_order_by_latent_is_the_transposed_order(z):
    support = Support.from_mask(z != 0)
    order, rows, starts = support.by_latent
    transposed = Support.from_mask((z != 0).T)
    assert torch.equal(support.latents[order.long()], transposed.rows)
    assert torch.equal(rows.long(), transposed.latents) and torch.equal(starts.long(), transposed.row_starts)


def test_keeping_the_largest_magnitudes_keeps_their_signs():
    codes = SparseCodes.from_dense(torch.tensor([[1.0, -3.0, 0.5, 2.0]]), k=2)
    assert codes.dense().tolist() == [[0.0, -3.0, 0.0, 2.0]]


def test_columns_frequencies_and_selection_follow_the_dense_form():
    z = sparse_matrix(50, 7, 3, seed=1)
    codes = SparseCodes.from_dense(z)
    assert all(torch.equal(codes.column(i), z[:, i]) for i in range(7))
    torch.testing.assert_close(codes.frequencies(), (z != 0).float().mean(0))
    assert torch.equal(codes.select(z[:, 0] != 0).dense(), z[z[:, 0] != 0])


def test_an_unused_slot_does_not_fire_latent_zero():
    codes = SparseCodes(torch.zeros(3, 2), torch.zeros(3, 2, dtype=torch.int64), 4)
    assert codes.counts().tolist() == [0, 0, 0] and codes.frequencies().sum() == 0


def test_joined_parts_may_differ_in_slots_but_not_in_latents():
    parts = [SparseCodes.from_dense(sparse_matrix(4, 5, k, seed=k)) for k in (1, 3)]
    assert torch.equal(SparseCodes.joined(parts).dense(), torch.cat([p.dense() for p in parts]))
    with pytest.raises(ShapeError, match="one dictionary"):
        SparseCodes.joined([parts[0], SparseCodes.from_dense(torch.ones(1, 6))])


def test_values_and_indices_of_different_shape_are_refused():
    with pytest.raises(ShapeError, match="must be equal"):
        SparseCodes(torch.zeros(2, 3), torch.zeros(2, 2, dtype=torch.int64), 4)


def test_places_are_counted_once_they_are_in_the_order_of_their_latents():
    for latents in (torch.tensor([[4, 0], [0, 5], [0, 2]]), torch.zeros(0, 2, dtype=torch.int64)):
        support = Support.from_indices(latents, 7)
        assert support.held() is None
        support.by_latent  # noqa: B018
        held = support.held()
        assert held.dtype == torch.int32 and held.tolist() == latents.view(-1).bincount(minlength=7).tolist()
        for zero in (False, True):
            values = torch.ones(latents.numel())
            values[:1] = 0.0 if zero else 1.0
            expected = torch.zeros(7).index_add(0, latents.view(-1), values)
            assert active_rows(values, support).tolist() == expected.tolist()


def test_supports_found_without_gradients_may_be_trained_on():
    indices = torch.tensor([[1, 3]]).expand(11, 2)
    with torch.inference_mode():
        Support.from_indices(indices, 5)
    values = torch.ones(22, requires_grad=True)
    torch.zeros(11).index_add(0, Support.from_indices(indices, 5).rows, values).square().sum().backward()
    assert values.grad.tolist() == [4.0] * 22


@pytest.mark.parametrize("true", [[], [0], [3, 4, 9], list(range(10))])
def test_positions_that_an_accelerator_finds_without_a_wait_are_all_and_in_order(true):
    mask = torch.zeros(10, dtype=torch.bool).index_fill(0, torch.tensor(true, dtype=torch.int64), True)
    assert codes._first(mask, len(true)).tolist() == true == codes.positions(mask, len(true)).tolist()
