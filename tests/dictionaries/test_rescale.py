"""Unit rows and thresholds per latent: the same reconstructions in one form."""

import pytest
import torch

from overtone.core.errors import CapabilityError
from overtone.dictionaries.encoders.tied import Tied
from overtone.dictionaries.presets.abs_top_k import AbsTopK
from overtone.dictionaries.presets.batch_top_k import BatchTopK
from overtone.dictionaries.presets.crosscoder import Crosscoder
from overtone.dictionaries.presets.gated import Gated
from overtone.dictionaries.presets.jump_relu import JumpReLU
from overtone.dictionaries.presets.matryoshka import Matryoshka
from overtone.dictionaries.presets.p_annealing import PAnnealing
from overtone.dictionaries.presets.relu_l1 import ReluL1
from overtone.dictionaries.presets.top_k import TopK
from overtone.dictionaries.presets.transcoder import Transcoder
from overtone.dictionaries.rescale import with_unit_rows
from overtone.training.fit import fit

PRESETS = [
    ReluL1(24), Gated(24), JumpReLU(24), PAnnealing(24), BatchTopK(24, k=3), Matryoshka(24, k=3),
    AbsTopK(24, k=3, scope="batch"), Crosscoder(24, k=3), Crosscoder(24, k=3, sparsity=0.2), TopK(24, k=3),
]  # fmt: skip


def uneven(preset, generator):
    """A trained dictionary whose rows then get lengths from 1/2 to 2 (where that does not change who wins)."""
    x = torch.randn(500, 8, generator=generator) + 1
    dictionary = fit(preset, x, n_tokens=4000, batch_rows=100, quiet=True).dictionary
    if dictionary.selection.has_threshold_form:
        rows = getattr(dictionary.decoder, "inner", dictionary.decoder).weight
        rows.data.mul_(0.5 + 1.5 * torch.rand(24, 1, generator=generator))
    return dictionary, x


@pytest.mark.parametrize("preset", PRESETS, ids=lambda p: f"{p.name}-{getattr(p, 'sparsity', '')}")
def test_unit_rows_leave_reconstructions_unchanged_thresholds_included(preset, generator):
    dictionary, x = uneven(preset, generator)
    unit = with_unit_rows(dictionary)
    torch.testing.assert_close(unit.atom_norms(), torch.ones(24))
    torch.testing.assert_close(unit.reconstruct(x), dictionary.reconstruct(x), rtol=1e-5, atol=1e-5)
    scaled = dictionary.encode(x).dense() * dictionary.atom_norms()
    torch.testing.assert_close(unit.encode(x).dense(), scaled, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(unit.folded().reconstruct(x), dictionary.reconstruct(x), rtol=1e-4, atol=1e-4)


def test_the_loss_of_the_rectifier_knows_no_scale_of_latents(generator):
    """(W_enc, b_enc) x c, W_dec / c per latent leaves the April loss unchanged."""
    from overtone.training.step import Given, forward

    preset = ReluL1(24)
    dictionary, x = uneven(preset, generator)
    given = Given(x, torch.zeros(0, dtype=torch.int64), 0.5)
    losses = [sum(o(forward(d, given)) for o in preset.objectives()) for d in (dictionary, with_unit_rows(dictionary))]
    torch.testing.assert_close(losses[0], losses[1])


def test_what_would_change_is_refused(generator):
    dictionary, _ = uneven(TopK(24, k=3), generator)
    dictionary.decoder.weight.data[0] *= 2
    with pytest.raises(CapabilityError, match="rank"):
        with_unit_rows(dictionary)
    dictionary.decoder.weight.data[0] = 0
    with pytest.raises(CapabilityError, match="length 0"):
        with_unit_rows(dictionary)
    tied, _ = uneven(ReluL1(24), generator)
    tied.encoder = Tied(24)
    with pytest.raises(CapabilityError, match="encoder.tied cannot be rescaled"):
        with_unit_rows(tied)
    transcoder = Transcoder(24).build(8, generator)
    torch.testing.assert_close(with_unit_rows(transcoder).atom_norms(), torch.ones(24))
