"""Gated: at inference it is a JumpReLU of its magnitudes."""

import torch

from overtone.dictionaries.presets.gated import Gated
from overtone.training.fit import fit


def test_it_equals_its_jump_relu_form_wherever_the_threshold_is_not_negative(generator):
    x = torch.randn(400, 10, generator=generator) + 1
    model = fit(Gated(40), x, n_tokens=8_000, batch_rows=100, quiet=True).dictionary.double()
    for parameter in (model.encoder.log_gain, model.encoder.magnitude_bias, model.encoder.bias):
        parameter.data.add_(0.3 * torch.randn(40, generator=generator))
    x = x.double()
    product = (model.normaliser(x) - model.decoder.bias) @ model.encoder.weight.T
    magnitude = model.encoder.log_gain.exp() * product + model.encoder.magnitude_bias
    theta = model.encoder.thresholds()
    jumped = magnitude * (magnitude > theta) / model.normaliser.unit
    told = theta >= 0
    assert 5 < int(told.sum()) < 35
    found = model.encode(x).dense()
    torch.testing.assert_close(found[:, told], jumped[:, told])
    assert not torch.allclose(found[:, ~told], jumped[:, ~told])


def test_the_price_moves_no_magnitude(generator):
    """The price reaches the gate's parameters only; exp(r) and b_mag follow the error alone."""
    from overtone.training.step import Given, forward

    preset, x = Gated(16), torch.randn(64, 6, generator=generator)
    model = preset.build(6, generator).train()
    model.start(x)
    _, price, gate = preset.objectives()
    step = forward(model, Given(x, torch.zeros(0, dtype=torch.int64), 0.5))
    (price(step) + gate(step)).backward()
    for parameter in (model.encoder.log_gain, model.encoder.magnitude_bias):
        assert parameter.grad is None or not parameter.grad.any()
    assert model.encoder.bias.grad.any()
