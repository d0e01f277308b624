"""Rows that are drawn in blocks, or for a slice, are those of one draw."""

import pytest
import torch
from torch.nn.functional import normalize

from overtone.dictionaries import starts
from overtone.dictionaries.autoencoder import linear_autoencoder
from overtone.dictionaries.selectors.rank import Rank
from overtone.dictionaries.slices import Slice, making
from overtone.dictionaries.starts import random_rows

SIZES = [(1, 1), (5, 3), (16, 1), (17, 1), (47, 1), (48, 7), (100, 7), (1000, 3), (333, 16)]


def alone(part):
    raise AssertionError("there is nothing to say to the others")


def part_of(n_latents: int, first: int, last: int) -> Slice:
    """The middle one of three slices."""
    return Slice(((0, first), (first, last), (last, n_latents)), 1, alone, alone)


@pytest.mark.parametrize(("n_latents", "width"), SIZES)
@pytest.mark.parametrize("block", [0, 200, 2**18])
def test_blocks_give_the_bits_of_one_draw_and_leave_the_generator_where_it_would_be(
    n_latents, width, block, monkeypatch
):
    monkeypatch.setattr(starts, "BLOCK", block)
    one, other = torch.Generator().manual_seed(3), torch.Generator().manual_seed(3)
    expected = normalize(torch.randn(n_latents, width, generator=one), dim=1)
    assert torch.equal(random_rows(n_latents, width, other), expected)
    assert torch.equal(one.get_state(), other.get_state())


@pytest.mark.parametrize(("first", "last"), [(0, 5), (3, 40), (16, 32), (60, 99), (99, 100)])
def test_a_slice_has_its_rows_of_the_same_draw_and_leaves_the_generator_alike(first, last, monkeypatch):
    monkeypatch.setattr(starts, "BLOCK", 0)
    one, other = torch.Generator().manual_seed(3), torch.Generator().manual_seed(3)
    expected = random_rows(100, 4, one)
    with making(part_of(100, first, last)):
        assert torch.equal(random_rows(100, 4, other), expected[first:last])
        assert len(random_rows(7, 4, other)) == 7, "rows of something else are not cut"
    random_rows(7, 4, one)
    assert torch.equal(one.get_state(), other.get_state())
    assert len(random_rows(100, 4, other)) == 100


def test_a_dictionary_that_is_made_for_a_slice_knows_where_it_lies_and_is_checked_as_a_whole(generator):
    """More active latents in a row than there are at hand."""
    where = part_of(100, 10, 15)
    with making(where):
        model = linear_autoencoder(4, Rank("row", 20), generator, n_latents=100)
    assert (model.slice, model.n_latents, len(model.decoder.weight)) == (where, 5, 5)
