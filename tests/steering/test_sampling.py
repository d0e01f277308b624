"""Tokens are drawn from the model's distribution with random numbers that belong to the row."""

import pytest
import torch

from overtone.core.errors import DataError
from overtone.steering.sampling import choose, row_uniforms


def test_a_rows_numbers_depend_on_its_key_and_the_seed_only():
    many, few = row_uniforms(0, [3, 4, 5], 20), row_uniforms(0, [5], 7)
    assert torch.equal(many[2, :7], few[0])
    assert not torch.equal(row_uniforms(1, [5], 7), few)
    assert len({tuple(row.tolist()) for row in row_uniforms(0, range(50), 4)}) == 50


def test_frequencies_are_the_softmax_at_the_temperature():
    logits = torch.tensor([[0.0, 1.0, -1.0, -torch.inf]]).expand(20_000, 4)
    u = row_uniforms(0, range(20_000), 1)[:, 0]
    for temperature in (1.0, 0.5):
        counts = torch.bincount(choose(logits, u, temperature), minlength=4) / 20_000
        torch.testing.assert_close(counts, (logits[0] / temperature).softmax(-1), atol=0.012, rtol=0)
        assert counts[3] == 0


def test_equal_uniforms_give_the_same_token_under_a_small_change_of_the_logits():
    """The point of sharing random numbers: two doses differ only where the dose makes the difference."""
    generator = torch.Generator().manual_seed(0)
    logits, u = torch.randn(2000, 50, generator=generator), torch.rand(2000, generator=generator)
    nudged = logits + 0.01 * torch.randn(2000, 50, generator=generator)
    shared = (choose(logits, u, 1.0) == choose(nudged, u, 1.0)).double().mean()
    apart = (choose(logits, u, 1.0) == choose(nudged, u.flip(0), 1.0)).double().mean()
    assert shared > 0.9 and apart < 0.2


def test_no_temperature_is_the_most_likely_token():
    logits = torch.tensor([[0.0, 3.0, 1.0], [2.0, 0.0, 1.0]])
    assert choose(logits, torch.rand(2), 0.0).tolist() == [1, 0]


@pytest.mark.parametrize("u", [0.0, 1 - 2**-24])
def test_the_ends_of_the_interval_give_possible_tokens(u):
    logits = torch.tensor([[-torch.inf, 0.0, 1.0, -torch.inf]])
    assert choose(logits, torch.tensor([u]), 1.0).tolist() in ([1], [2])


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_logits_that_are_not_finite_are_a_named_error(temperature):
    with pytest.raises(DataError, match="not finite"):
        choose(torch.tensor([[0.0, torch.nan]]), torch.tensor([0.5]), temperature)
