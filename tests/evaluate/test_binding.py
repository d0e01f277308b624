"""Binding is read from a decoder that was given it, and not from one that was not."""

import pytest
import torch

from overtone.core.errors import CapabilityError
from overtone.data.synthetic import plant_pairs
from overtone.dictionaries.presets.poly_sae import PolySAE
from overtone.dictionaries.presets.top_k import TopK
from overtone.evaluate.binding import binding_auroc, steered_binding

N = 12


@pytest.fixture
def made():
    """Planted pairs, of which those bind that share no feature with others that do; rows; and a dictionary whose
    weights are the truth."""
    planted = plant_pairs(N, N, 8, strength=1.0, max_cosine=0.01, seed=0)
    dictionary = PolySAE(N, k=3, square=N, cube=N).build(N, torch.Generator().manual_seed(0))
    decoder, mix, taken = dictionary.decoder, torch.eye(N), set()
    decoder.second.data.zero_(), decoder.third.data.zero_()
    for place, (i, j) in enumerate(planted.pairs.tolist()):
        vector = planted.vectors[place] / (2 * decoder.weights[0].detach())
        if taken & {i, j}:  # this one does not bind
            planted.vectors[place] = 0
        else:  # (z_i + z_j)^2 / 2 and (z_i - z_j)^2 / 2, whose difference is 2 z_i z_j
            mix[i, i] = mix[j, i] = mix[i, j] = 0.5**0.5
            mix[j, j] = -(0.5**0.5)
            decoder.second.data[i], decoder.second.data[j] = vector, -vector
            taken |= {i, j}
    decoder.mix.data.copy_(mix)
    decoder.first.data.copy_(mix.T @ planted.atoms)
    dictionary.encoder.weight.data.copy_(planted.atoms)
    given = planted.pairs.T
    torch.testing.assert_close(decoder.bindings(given[0], given[1]), planted.vectors)
    return planted, planted.sample(500, active=3, together=0.8, seed=1).x, dictionary


def test_strength_tells_binding_from_meeting_and_covariance_does_not(made):
    planted, x, dictionary = made
    found = binding_auroc(dictionary, x, planted)
    assert found["strength"] == 1.0 and abs(found["covariance"] - 0.5) < 0.4


def test_without_binding_weights_nothing_is_told(made):
    planted, x, dictionary = made
    dictionary.decoder.second.data.zero_()
    assert binding_auroc(dictionary, x, planted)["strength"] == 0.5


def test_where_one_kind_is_missing_there_is_nothing_to_tell(made):
    planted, x, dictionary = made
    planted.vectors.zero_()
    assert binding_auroc(dictionary, x, planted) == {"strength": 0.5, "covariance": 0.5}


def test_steering_by_a_sum_brings_about_what_the_pair_adds_and_by_a_random_sum_does_not(made):
    """k is 3, so that what is moved also loses features: some of the vector comes and goes by that alone."""
    planted, x, dictionary = made
    found = steered_binding(dictionary, x, planted)
    assert found["by sum"] > found["by random"] + 0.4
    dictionary.decoder.second.data.mul_(1e-6)  # the pair's product points the same way, and counts for nothing
    without = steered_binding(dictionary, x, planted)
    assert found["by sum"] > without["by sum"] + 0.4
    assert without["by product"] == pytest.approx(found["by product"], abs=0.05)


def test_where_nothing_binds_steering_brings_about_nothing(made):
    planted, x, dictionary = made
    planted.vectors.zero_()
    assert set(steered_binding(dictionary, x, planted).values()) == {0.0}


@pytest.mark.parametrize("measure", [binding_auroc, steered_binding])
def test_a_linear_decoder_is_refused(measure, made):
    planted, x, _ = made
    with pytest.raises(CapabilityError, match="poly_sae"):
        measure(TopK(N, k=3).build(N, torch.Generator().manual_seed(0)), x, planted)
