"""Unit rows and thresholds per latent: the same reconstructions in one form."""

import copy

import pytest
import torch

from format_dictionaries import PRESETS, states, trained
from overtone.core.errors import CapabilityError
from overtone.dictionaries.autoencoder import Autoencoder
from overtone.dictionaries.encoders.tied import Tied
from overtone.dictionaries.presets.abs_top_k import AbsTopK
from overtone.dictionaries.presets.crosscoder import Crosscoder
from overtone.dictionaries.presets.relu_l1 import ReluL1
from overtone.dictionaries.presets.top_k import TopK
from overtone.dictionaries.presets.transcoder import Transcoder
from overtone.dictionaries.rescale import with_unit_rows
from overtone.dictionaries.storage import load_dictionary, save_dictionary
from overtone.training.fit import fit

MORE = [AbsTopK(8, k=3, scope="batch"), Crosscoder(8, k=3, sparsity=0.2, views=2)]  # other parts than by default
REFUSED = {  # with the reason
    "poly_sae": "has no atoms",
    "skip_transcoder": "rows differ in length",  # free rows, ranked by pre-activations
    "v_sae": "does not scale",
}


def uneven(dictionary, generator):
    """A copy whose rows have lengths from 1/2 to 2 times theirs (where that does not change who wins)."""
    other = copy.deepcopy(dictionary)
    if isinstance(other, Autoencoder) and other.selection.has_threshold_form:
        rows = getattr(other.decoder, "inner", other.decoder).weight
        rows.data.mul_(0.5 + 1.5 * torch.rand(len(rows), 1, generator=generator))
    return other


def made(preset, generator):
    dictionary = fit(preset, states(200, 8), n_tokens=4000, batch_rows=100, quiet=True).dictionary
    return uneven(dictionary, generator)


def require_same(dictionary, unit, x):
    """The same reconstructions from atoms of length 1, before and after folding."""
    torch.testing.assert_close(unit.atom_norms(), torch.ones(dictionary.n_latents))
    torch.testing.assert_close(unit.reconstruct(x), dictionary.reconstruct(x), rtol=1e-5, atol=1e-5)
    scaled = dictionary.encode(x).dense() * dictionary.atom_norms()
    torch.testing.assert_close(unit.encode(x).dense(), scaled, rtol=1e-4, atol=1e-5)
    if unit.capabilities.foldable:
        torch.testing.assert_close(unit.folded().reconstruct(x), dictionary.reconstruct(x), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", PRESETS)
def test_unit_rows_leave_reconstructions_unchanged_thresholds_included(name, generator, tmp_path):
    dictionary, x = uneven(trained(name), generator), states(200, 8)
    before = copy.deepcopy(dictionary.state_dict())
    if name in REFUSED:
        with pytest.raises(CapabilityError, match=REFUSED[name]):
            with_unit_rows(dictionary)
        return
    unit = with_unit_rows(dictionary)
    require_same(dictionary, unit, x)
    assert all(torch.equal(value, before[key]) for key, value in dictionary.state_dict().items())
    kept = load_dictionary(save_dictionary(unit, tmp_path / "unit"))
    assert torch.equal(kept.encode(x).dense(), unit.encode(x).dense())


@pytest.mark.parametrize("preset", MORE, ids=lambda p: p.name)
def test_unit_rows_of_other_settings(preset, generator):
    dictionary = made(preset, generator)
    require_same(dictionary, with_unit_rows(dictionary), states(200, 8))


@pytest.mark.parametrize("scaled", [False, True])
def test_tied_rows_of_any_length_are_rescaled_through_their_factors(scaled, generator):
    dictionary = made(ReluL1(8), generator)
    dictionary.encoder = Tied(8, scaled=scaled)
    if scaled:
        dictionary.encoder.scale.data.copy_(1 + torch.rand(8, generator=generator))
    dictionary.encoder.bias.copy_(torch.randn(8, generator=generator))
    require_same(dictionary, with_unit_rows(dictionary), states(200, 8))


def test_the_loss_of_the_rectifier_knows_no_scale_of_latents(generator):
    """(W_enc, b_enc) x c, W_dec / c per latent leaves the April loss unchanged."""
    from overtone.training.step import Given, forward

    preset = ReluL1(24)
    dictionary, x = made(preset, generator), states(200, 8)
    given = Given(x, torch.zeros(0, dtype=torch.int64), 0.5)
    losses = [sum(o(forward(d, given)) for o in preset.objectives()) for d in (dictionary, with_unit_rows(dictionary))]
    torch.testing.assert_close(losses[0], losses[1])


def test_what_would_change_is_refused(generator):
    dictionary = made(TopK(24, k=3), generator)
    dictionary.decoder.weight.data[0] *= 2
    with pytest.raises(CapabilityError, match="rank"):
        with_unit_rows(dictionary)
    dictionary.decoder.weight.data[0] = 0
    with pytest.raises(CapabilityError, match="length 0"):
        with_unit_rows(dictionary)
    transcoder = Transcoder(24).build(8, generator)
    torch.testing.assert_close(with_unit_rows(transcoder).atom_norms(), torch.ones(24))


def test_lengths_that_belong_to_a_dictionary_of_its_own_kind_are_left_alone(monkeypatch):
    lookup = trained("k_means")
    monkeypatch.setattr(type(lookup), "atom_norms", lambda self: torch.full((8,), 2.0))
    with pytest.raises(CapabilityError, match="other lengths than 1, which belong to it"):
        with_unit_rows(lookup)
