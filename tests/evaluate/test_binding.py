"""Binding is read from a decoder that was given it, and not from one that was not."""

import pytest
import torch

from overtone.core.errors import CapabilityError
from overtone.data.synthetic import plant_pairs
from overtone.dictionaries.presets.poly_sae import PolySAE
from overtone.dictionaries.presets.top_k import TopK
from overtone.evaluate.binding import binding_auroc

N = 12


@pytest.fixture
def made():
    """Planted pairs, the first half of which bind, rows, and a dictionary whose weights are the truth."""
    planted = plant_pairs(N, N, 8, strength=1.0, max_cosine=0.01, seed=0)
    planted.vectors[4:] = 0
    dictionary = PolySAE(N, k=3, square=N, cube=0).build(N, torch.Generator().manual_seed(0))
    dictionary.encoder.weight.data.copy_(planted.atoms)
    dictionary.decoder.initialise(planted.atoms, torch.Generator().manual_seed(1))
    every = torch.combinations(torch.arange(N))
    target = torch.zeros(len(every), N)
    for pair, vector in zip(planted.pairs.tolist(), planted.vectors, strict=True):
        target[every.tolist().index(sorted(pair))] = vector
    mix = dictionary.decoder.mix.data
    products = mix[every[:, 0]] * mix[every[:, 1]]
    dictionary.decoder.second.data.copy_(torch.linalg.lstsq(products, target).solution)
    return planted, planted.sample(500, active=3, together=0.8, seed=1).x, dictionary


def test_strength_tells_binding_from_meeting_and_covariance_does_not(made):
    planted, x, dictionary = made
    found = binding_auroc(dictionary, x, planted)
    assert found["strength"] > 0.85 and abs(found["covariance"] - 0.5) < 0.4


def test_without_binding_weights_nothing_is_told(made):
    planted, x, dictionary = made
    dictionary.decoder.second.data.zero_()
    assert binding_auroc(dictionary, x, planted)["strength"] == 0.5


def test_where_one_kind_is_missing_there_is_nothing_to_tell(made):
    planted, x, dictionary = made
    planted.vectors.zero_()
    assert binding_auroc(dictionary, x, planted) == {"strength": 0.5, "covariance": 0.5}


def test_a_linear_decoder_is_refused(made):
    planted, x, _ = made
    with pytest.raises(CapabilityError, match="poly_sae"):
        binding_auroc(TopK(N, k=3).build(N, torch.Generator().manual_seed(0)), x, planted)
