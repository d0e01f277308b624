"""The forward pass of training equals the dense one, gradients included, for every kind of selection and term."""

import pytest
import torch
from torch.nn.functional import linear

from overtone.dictionaries.presets.abs_top_k import AbsTopK
from overtone.dictionaries.presets.batch_top_k import BatchTopK
from overtone.dictionaries.presets.random_directions import RandomDirections
from overtone.dictionaries.presets.relu_l1 import ReluL1
from overtone.dictionaries.presets.top_k import TopK
from overtone.training import step as steps
from overtone.training.step import Given, forward

WIDTH, LATENTS, K, ROWS = 6, 16, 3, 40
PRESETS = [
    TopK(LATENTS, k=K, k_aux=2),
    BatchTopK(LATENTS, k=K, k_aux=2),
    AbsTopK(LATENTS, k=K, k_aux=2),
    AbsTopK(LATENTS, k=K, scope="batch", k_aux=2),
    ReluL1(LATENTS),
    RandomDirections(LATENTS, k=K),
]
NAMES = [f"{p.name}-{getattr(p, 'scope', '')}" for p in PRESETS]
DEAD = torch.tensor([1, 4, 5, 11])


def model_and_states(preset):
    """A float64 dictionary in training mode with random biases, and states."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(ROWS, WIDTH, generator=generator, dtype=torch.float64) + 1
    model = preset.build(WIDTH, generator).double().train()
    model.start(x)
    for parameter in (model.encoder.bias, model.encoder.weight):
        parameter.data.add_(0.1 * torch.randn(parameter.shape, generator=generator, dtype=torch.float64))
    return model, x


def loss_of(preset, step):
    return torch.stack([objective(step) for objective in preset.objectives()]).sum()


def gradients(model):
    return {name: p.grad for name, p in model.named_parameters() if p.requires_grad}


def dense_loss(preset, model, x):
    """The loss written out with dense torch operations, and torch's own gradients."""
    x = model.normaliser(x)
    u = linear(x - model.centre(), model.encoder.weight, model.encoder.bias)
    signed = model.capabilities.signed_codes
    score = u.abs() if signed else u
    if isinstance(preset, ReluL1):
        mask = u > 0
    elif model.capabilities.batch_independent:
        mask = score >= score.topk(K, dim=1).values[:, -1:]
    else:
        mask = score >= score.flatten().topk(K * ROWS).values[-1]
    z = u * mask if signed else u.relu() * mask
    x_hat = z @ model.decoder.weight + model.decoder.bias
    error = (x - x_hat).square().sum() / ROWS / model.normaliser.spread
    if isinstance(preset, ReluL1):
        price = (z * model.decoder.weight.norm(dim=1)).sum() / ROWS / model.normaliser.spread.sqrt()
        return error + preset.sparsity * price
    if isinstance(preset, RandomDirections):
        return error
    rest, few = (x - x_hat).detach(), torch.where(torch.isin(torch.arange(LATENTS), DEAD), score, -torch.inf)
    chosen = few >= few.topk(2, dim=1).values[:, -1:]
    again = (u * chosen if signed else u.relu() * chosen) @ model.decoder.weight
    return error + (rest - again).square().sum() / (rest - rest.mean(0)).square().sum() / 32


@pytest.fixture(params=["sparse", "dense"])
def auxiliary_way(request, monkeypatch):
    """How dead latents are decoded: place by place, or by products with their rows."""
    monkeypatch.setattr(steps, "DENSE_WITH", 0 if request.param == "sparse" else 5)


@pytest.mark.parametrize("preset", PRESETS, ids=NAMES)
def test_loss_and_gradients_equal_the_dense_ones(preset, auxiliary_way):
    model, x = model_and_states(preset)
    loss = loss_of(preset, forward(model, Given(x, DEAD, 0.5)))
    loss.backward()
    found = gradients(model)
    model.zero_grad()
    expected = dense_loss(preset, model, x)
    expected.backward()
    torch.testing.assert_close(loss, expected)
    torch.testing.assert_close(found, gradients(model))


def test_the_dense_pass_and_the_sparse_pass_of_a_rectifier_agree(monkeypatch):
    preset = ReluL1(LATENTS)
    model, x = model_and_states(preset)
    found = []
    for dense_from in (0.0, 1.1):
        monkeypatch.setattr(steps, "DENSE_FROM", dense_from)
        model.zero_grad()
        step = forward(model, Given(x, DEAD, 1.0))
        loss_of(preset, step).backward()
        found.append((step.values.ndim, gradients(model)))
    assert (found[0][0], found[1][0]) == (2, 1)
    torch.testing.assert_close(found[0][1], found[1][1])


@pytest.mark.parametrize("preset", PRESETS[:4], ids=NAMES[:4])
def test_the_auxiliary_loss_reaches_the_rows_of_dead_latents_and_only_those(preset, auxiliary_way):
    model, x = model_and_states(preset)
    auxiliary = preset.objectives()[1]
    auxiliary(forward(model, Given(x, DEAD, 0.5))).backward()
    for gradient in (model.encoder.weight.grad, model.encoder.bias.grad.unsqueeze(1), model.decoder.weight.grad):
        reached = gradient.abs().sum(1) > 0
        assert reached[DEAD].all() and reached.sum() == len(DEAD)


@pytest.mark.parametrize("preset", PRESETS[:4], ids=NAMES[:4])
def test_the_auxiliary_loss_is_zero_when_no_latent_is_dead(preset):
    model, x = model_and_states(preset)
    assert float(preset.objectives()[1](forward(model, Given(x, DEAD[:0], 0.5)))) == 0.0


@pytest.mark.parametrize("preset", [PRESETS[1], PRESETS[3]], ids=[NAMES[1], NAMES[3]])
@pytest.mark.parametrize("rows", [1, 7, 40])
def test_batch_selection_keeps_exactly_the_budget(preset, rows):
    model, x = model_and_states(preset)
    for _ in range(3):  # the hint that speeds up later batches must not change the count
        step = forward(model, Given(x[:rows], DEAD[:0], 0.5))
        assert len(step.values) == K * rows
