"""g-SAE selects by u (1 + beta p), keeps the values, and is TopK where there is no gradient (card checks 1, 2, 4)."""

import pytest
import torch
from torch.nn.functional import cosine_similarity, linear

from overtone.core.batch import ActivationBatch, Where
from overtone.core.errors import CapabilityError, DataError, SettingError, ShapeError
from overtone.core.sites import Site
from overtone.dictionaries.choice import everywhere
from overtone.dictionaries.decoders.linear import Linear
from overtone.dictionaries.presets.g_sae import GSAE
from overtone.dictionaries.presets.top_k import TopK
from overtone.dictionaries.scores import GradientWeighted
from overtone.training.fit import fit
from overtone.training.step import Given, forward

WIDTH, LATENTS, K, ROWS = 6, 20, 3, 200
NONE = torch.zeros(0, dtype=torch.int64)
HERE = Site("residual", 0)


def rows(seed=0, n=ROWS):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(n, WIDTH, generator=generator) + 1, torch.randn(n, WIDTH, generator=generator)


def batch(x, g):
    zeros = torch.zeros(len(x), dtype=torch.int64)
    return ActivationBatch({HERE: x}, Where(torch.arange(len(x)), zeros, zeros - 1), g={HERE: g})


def started(beta, x):
    model = GSAE(LATENTS, k=K, beta=beta).build(WIDTH, torch.Generator().manual_seed(1))
    model.start(x)
    return model


def by_hand(model, x, g, beta):
    """Dense codes by the formula, in plain torch."""
    u = linear(model.normaliser(x) - model.decoder.bias, model.encoder.weight, model.encoder.bias)
    pull = cosine_similarity(g[:, None], model.decoder.weight[None], dim=2).abs() * WIDTH**0.5
    score = u * (1 + beta * pull)
    mask = torch.zeros_like(u).scatter_(1, score.topk(K, dim=1).indices, 1.0)
    return u.relu() * mask / model.outward.unit


def test_selection_is_the_formula_and_values_are_those_of_the_pre_activation():
    x, g = rows()
    model = started(2.0, x)
    expected = by_hand(model, x, g, 2.0)
    torch.testing.assert_close(model.encode(x, {"g": g}).dense(), expected)
    plain = model.encode(x).dense()
    both = (plain != 0) & (expected != 0)
    torch.testing.assert_close(plain[both], expected[both])
    assert bool(((plain != 0) != (expected != 0)).any()), "gradients change who is chosen"
    torch.testing.assert_close(plain, by_hand(model, x, torch.zeros_like(g).add(1e-30), 0.0))


def test_a_training_step_selects_by_the_gradients_too():
    x, g = rows()
    model = started(2.0, x).train()
    step = forward(model, Given(x, NONE, 0.5, g=g))
    found = step.chosen.support.codes(step.values).dense() / model.outward.unit
    torch.testing.assert_close(found.detach(), by_hand(model, x, g, 2.0).detach())


def test_with_beta_0_it_trains_to_the_bits_of_top_k():
    x, g = rows()
    options = {"n_tokens": 4000, "batch_rows": 50, "quiet": True}
    ours = fit(GSAE(LATENTS, k=K, beta=0.0), batch(x, g), **options).dictionary
    theirs = fit(TopK(LATENTS, k=K), x, **options).dictionary
    assert all(torch.equal(value, theirs.state_dict()[key]) for key, value in ours.state_dict().items())
    assert torch.equal(ours.encode(x, {"g": g}).dense(), theirs.encode(x).dense())


def test_the_score_with_beta_0_is_the_pre_activation_to_the_bit():
    x, g = rows()
    model, score = started(0.0, x), GradientWeighted(0.0)
    u = linear(x, model.encoder.weight, model.encoder.bias)
    assert torch.equal(score({"u": u, **score.sides(model.decoder, {"g": g})}, everywhere), u)


def test_a_row_without_a_gradient_is_encoded_as_top_k_does():
    x, g = rows()
    g[::2] = 0
    model = started(4.0, x)
    with_g, without = model.encode(x, {"g": g}).dense(), model.encode(x).dense()
    assert torch.equal(with_g[::2], without[::2]) and not torch.equal(with_g[1::2], without[1::2])


def test_scaling_the_loss_changes_nothing():
    x, g = rows()
    model = started(4.0, x)
    codes = model.encode(x, {"g": g}).dense()
    assert all(torch.equal(model.encode(x, {"g": scale * g}).dense(), codes) for scale in (10.0, 1e-4, 1e-30, 1e30))
    token_by_token = g * torch.rand(ROWS, 1, generator=torch.Generator().manual_seed(2)).add(0.1)
    torch.testing.assert_close(model.encode(x, {"g": token_by_token}).dense(), codes)


def test_longer_decoder_rows_change_nothing_but_a_longer_one_among_them_matters_more():
    _, g = rows()
    score, decoder = GradientWeighted(1.0), Linear(WIDTH, LATENTS)
    decoder.weight.data.normal_(generator=torch.Generator().manual_seed(3))
    pull = score.sides(decoder, {"g": g})["pull"]
    decoder.weight.data.mul_(7)
    torch.testing.assert_close(score.sides(decoder, {"g": g})["pull"], pull)
    decoder.weight.data[4] *= 3
    after = score.sides(decoder, {"g": g})["pull"]
    assert bool((after[:, 4] > pull[:, 4]).all()) and bool((after[:, 5] < pull[:, 5]).all())


def test_random_directions_have_an_influence_of_1_in_root_mean_square():
    decoder, generator = Linear(64, 4000), torch.Generator().manual_seed(4)
    decoder.weight.data.normal_(generator=generator)
    pull = GradientWeighted(1.0).sides(decoder, {"g": torch.randn(50, 64, generator=generator)})["pull"]
    assert 0.97 < float(pull.square().mean().sqrt()) < 1.03


def test_gradients_beside_those_without_length_or_of_any_size_are_told_to_the_bit_as_without_them():
    _, g = rows()
    score, decoder = GradientWeighted(1.0), Linear(WIDTH, LATENTS)
    decoder.weight.data.normal_(generator=torch.Generator().manual_seed(3))
    alone = score.boost(decoder, {"g": g}).states
    for other in (0.0, 1e-25, 1e25):
        beside = score.boost(decoder, {"g": torch.cat([other * g[:3], g])}).states
        assert torch.equal(beside[3:], alone)
        torch.testing.assert_close(beside[:3], alone[:3] * (other > 0))


def test_a_folded_dictionary_chooses_alike():
    x, g = rows()
    x = 40 * x
    model = started(4.0, x)
    codes, plain = (model.encode(x, beside).dense() for beside in ({"g": g}, None))
    assert not torch.equal(codes != 0, plain != 0)
    torch.testing.assert_close(model.folded().encode(x, {"g": g}).dense(), codes)


def test_gradients_of_another_shape_are_refused():
    x, g = rows()
    model = started(1.0, x)
    with pytest.raises(ShapeError, match=rf"expected \(rows, {WIDTH}\)"):
        model.encode(x, {"g": g[:, 1:]})
    with pytest.raises(ShapeError, match=f"g: expected {ROWS} rows"):
        model.encode(x, {"g": g[:1]})


def test_what_a_dictionary_does_not_take_beside_states_is_refused():
    x, g = rows()
    with pytest.raises(SettingError, match="'gradient' beside the states is unknown.* takes g"):
        started(1.0, x).encode(x, {"gradient": g})
    plain = TopK(8, k=2).build(WIDTH, torch.Generator().manual_seed(0))
    with pytest.raises(CapabilityError, match="got g beside the states, .* by states alone"):
        plain.encode(x, {"g": g})
    assert torch.equal(plain.encode(x, {}).dense(), plain.encode(x).dense())


def test_training_without_gradients_is_refused():
    x, g = rows()
    with pytest.raises(SettingError, match="ActivationBatch"):
        fit(GSAE(LATENTS, k=K), x, n_tokens=100, quiet=True)
    zeros = torch.zeros(ROWS, dtype=torch.int64)
    with pytest.raises(DataError, match="no gradients at residual.0"):
        fit(GSAE(LATENTS, k=K), ActivationBatch({HERE: x}, Where(zeros, zeros, zeros)), n_tokens=100, quiet=True)
    with pytest.raises(SettingError, match="beta=-1.0: use a finite number of at least 0"):
        GSAE(LATENTS, k=K, beta=-1.0)
