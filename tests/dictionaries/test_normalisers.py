"""Normalisers that bring each row to a size of its own: the laws of dictionaries hold with them too."""

import pytest
import torch

from overtone.core.errors import CapabilityError, DataError
from overtone.dictionaries.autoencoder import Autoencoder, linear_autoencoder
from overtone.dictionaries.codes import SparseCodes
from overtone.dictionaries.normalisers import FixedNorm, Standardised
from overtone.dictionaries.selectors.rank import Rank
from overtone.dictionaries.storage import load_dictionary, save_dictionary

KINDS = [Standardised, FixedNorm]


def states(rows=50):
    """(rows, 8) states of very different sizes and means."""
    generator = torch.Generator().manual_seed(0)
    sizes = torch.rand(rows, 1, generator=generator) * 5 + 0.1
    return sizes * torch.randn(rows, 8, generator=generator) + torch.randn(rows, 1, generator=generator)


def made(kind):
    """A random TopK dictionary whose rows are normalised one by one."""
    generator = torch.Generator().manual_seed(1)
    model = linear_autoencoder(8, Rank("row", 4), generator, n_latents=32)
    model.decoder.bias.data.normal_(generator=generator)
    slots = (model.encoder, model.score, model.selection, model.value, model.decoder)
    return Autoencoder(kind(), *slots).eval()


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_normalised_comes_back(kind):
    normaliser, x = kind(), states()
    inside = normaliser(x)
    torch.testing.assert_close(normaliser.inverse(inside, x), x, rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(inside.norm(dim=1), inside.norm(dim=1).mean().expand(50), rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("kind", KINDS)
def test_a_row_is_encoded_alone_as_in_company_and_codes_grow_with_it(kind):
    model, x = made(kind), states()
    together = model.encode(x).dense()
    torch.testing.assert_close(torch.cat([model.encode(row[None]).dense() for row in x]), together)
    torch.testing.assert_close(model.encode(100 * x).dense(), 100 * together, rtol=1e-3, atol=1e-2)


@pytest.mark.parametrize("kind", KINDS)
def test_a_latent_adds_the_same_atom_in_every_row(kind):
    model, x = made(kind), states()
    codes = model.encode(x)
    nothing = SparseCodes(torch.zeros(50, 1), torch.zeros(50, 1, dtype=torch.int64), 32)
    by_hand = codes.dense() @ (model.atom_norms()[:, None] * model.atoms()) + model.decode(nothing, x)
    torch.testing.assert_close(model.decode(codes, x), by_hand, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("kind", KINDS)
def test_decoding_asks_for_the_rows_and_nothing_can_be_folded(kind, tmp_path):
    model, x = made(kind), states()
    assert model.capabilities.decode_needs_input and not model.capabilities.foldable
    with pytest.raises(DataError, match=r"decode\(codes, x\)"):
        model.decode(model.encode(x))
    with pytest.raises(CapabilityError, match="fold"):
        model.folded()
    again = load_dictionary(save_dictionary(model, tmp_path / "made"))
    assert torch.equal(again.reconstruct(x), model.reconstruct(x))


@pytest.mark.parametrize("kind", KINDS)
def test_a_row_without_size_gives_no_nan(kind):
    model = made(kind)
    flat = torch.zeros(2, 8)
    assert torch.isfinite(model.encode(flat).values).all() and torch.isfinite(model.reconstruct(flat)).all()
