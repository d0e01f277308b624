"""Losses and gradients of the standard methods equal their papers' formulas written with dense torch operations."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch.nn.functional import linear

from overtone.dictionaries.objectives.auxiliary import ResidualAux
from overtone.dictionaries.presets.crosscoder import Crosscoder
from overtone.dictionaries.presets.gated import Gated
from overtone.dictionaries.presets.jump_relu import JumpReLU
from overtone.dictionaries.presets.matryoshka import Matryoshka
from overtone.dictionaries.presets.multi_top_k import MultiTopK
from overtone.dictionaries.presets.p_annealing import PAnnealing
from overtone.dictionaries.presets.skip_transcoder import SkipTranscoder
from overtone.dictionaries.presets.transcoder import Transcoder
from overtone.training import step as steps
from overtone.training.step import Given, forward

WIDTH, OUT, LATENTS, K, ROWS = 6, 5, 16, 3, 40
DEAD = torch.tensor([1, 4, 5, 11])
STATE = {"annealing.p": torch.tensor(0.5), "annealing.factor": torch.tensor(3.0), "price.factor": torch.tensor(0.7)}


class Jump(torch.autograd.Function):
    """JumpReLU and the step function with the pseudo-derivatives of arXiv 2407.14435, equations 11 and 12."""

    @staticmethod
    def forward(ctx, u, theta, window):
        ctx.save_for_backward(u, theta)
        ctx.window = window
        open_ = (u > theta).to(u.dtype)
        return u * open_, open_

    @staticmethod
    def backward(ctx, of_z, of_open):
        u, theta = ctx.saved_tensors
        inside = ((u - theta).abs() < ctx.window / 2).to(u.dtype) / ctx.window
        return of_z * (u > theta), -(theta * inside * of_z + inside * of_open).sum(0), None


def start(preset, seed=0):
    """A float64 dictionary in training mode with disturbed parameters, and its states."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(ROWS, WIDTH, generator=generator, dtype=torch.float64) + 1
    y = x[:, :OUT].abs() - 0.5 * x.roll(1, 1)[:, :OUT]
    model = preset.build(WIDTH, generator, **({"width_out": OUT} if "y" in preset.needs else {})).double().train()
    model.start(x, y)
    for parameter in model.parameters():
        parameter.data.add_(0.1 * torch.randn(parameter.shape, generator=generator, dtype=torch.float64))
    return model, x, y


def size(model: torch.nn.Module) -> Tensor:
    return model.outward.spread.sqrt()


def missed(model, x, x_hat) -> Tensor:
    return (x - x_hat).square().sum() / ROWS / model.outward.spread


def gated(preset, model, x) -> Tensor:
    e, d = model.encoder, model.decoder
    product = (x - d.bias) @ e.weight.T
    gate = product + e.bias
    z = (gate > 0) * (e.log_gain.exp() * product + e.magnitude_bias).relu()
    alone = gate.relu() @ d.weight.detach() + d.bias.detach()
    price = STATE["price.factor"] * preset.sparsity * (gate.relu() * d.weight.norm(dim=1)).sum() / ROWS / size(model)
    return missed(model, x, z @ d.weight + d.bias) + price + missed(model, x, alone)


def jump_relu(preset, model, x) -> Tensor:
    u = linear(x - model.decoder.bias, model.encoder.weight, model.encoder.bias)
    z, is_open = Jump.apply(u, model.selection.log_theta.exp(), float(model.selection.window))
    norms = model.decoder.weight.norm(dim=1)
    error = missed(model, x, z @ model.decoder.weight + model.decoder.bias)
    if preset.target_l0 is not None:
        price = (is_open.sum() / ROWS / preset.target_l0 - 1) ** 2
    elif preset.penalty == "tanh":
        price = preset.sparsity * torch.tanh(4 * z * norms * WIDTH**0.5 / size(model)).sum() / ROWS
    else:
        price = preset.sparsity * is_open.sum() / ROWS
    short = (model.selection.log_theta.exp() - u).relu() * norms
    return error + STATE["price.factor"] * price + preset.revive * short[:, DEAD].sum() / ROWS / size(model)


def p_annealing(preset, model, x) -> Tensor:
    z = linear(x - model.decoder.bias, model.encoder.weight, model.encoder.bias).relu()
    amount = z * model.decoder.weight.norm(dim=1) / size(model)
    assert not ((amount > 0) & (amount < 1e-3)).any(), "the tangent has a test of its own"
    price = preset.sparsity * 0.7 * 3.0 * amount[amount > 0].sqrt().sum() / ROWS
    return missed(model, x, z @ model.decoder.weight + model.decoder.bias) + price


def matryoshka(preset, model, x) -> Tensor:
    u = linear(x - model.decoder.bias, model.encoder.weight, model.encoder.bias)
    z = u.relu() * (u >= u.flatten().topk(K * ROWS).values[-1])
    prefixes = (1, 2, 4, 8, 16)
    x_hats = [z[:, :m] @ model.decoder.weight[:m] + model.decoder.bias for m in prefixes]
    aux = aux_k(x - x_hats[-1], u, u, model.decoder.weight, 2)
    return torch.stack([missed(model, x, x_hat) for x_hat in x_hats]).mean() + aux


def aux_k(e, u, score, rows, k) -> Tensor:
    e, few = e.detach(), score[:, DEAD]
    again = (u[:, DEAD].relu() * (few >= few.topk(k, dim=1).values[:, -1:])) @ rows[DEAD]
    return (e - again).square().sum() / (e - e.mean(0)).square().sum() / 32


def best(u, k) -> Tensor:
    return u.relu() * (u >= u.topk(k, dim=1).values[:, -1:])


def multi_top_k(preset, model, x) -> Tensor:
    u = linear(x - model.decoder.bias, model.encoder.weight, model.encoder.bias)
    x_hat, more = (best(u, k) @ model.decoder.weight + model.decoder.bias for k in (K, 4 * K))
    aux = aux_k(x - x_hat, u, u, model.decoder.weight, WIDTH // 2)
    return missed(model, x, x_hat) + missed(model, x, more) / 8 + aux


def transcoder(preset, model, x, y) -> Tensor:
    z = linear(x, model.encoder.weight, model.encoder.bias).relu()
    price = STATE["price.factor"] * preset.sparsity * (z * model.decoder.weight.norm(dim=1)).sum() / ROWS / size(model)
    return missed(model, y, z @ model.decoder.weight + model.decoder.bias) + price


def skip_transcoder(preset, model, x, y) -> Tensor:
    u, inner = linear(x, model.encoder.weight, model.encoder.bias), model.decoder.inner
    y_hat = best(u, K) @ inner.weight + inner.bias + x @ model.decoder.weight.T
    return missed(model, y, y_hat) + aux_k(y - y_hat, u, u, inner.weight, OUT // 2)


def crosscoder(preset, model, x) -> Tensor:
    rows, bias = model.decoder.inner.weight, model.decoder.inner.bias
    u = linear(x, model.encoder.weight, model.encoder.bias)
    norms = rows[:, :3].norm(dim=1) + rows[:, 3:].norm(dim=1)
    if preset.sparsity is not None:
        price = STATE["price.factor"] * preset.sparsity * (u.relu() * norms).sum() / ROWS / size(model)
        return missed(model, x, u.relu() @ rows + bias) + price
    score = u * norms
    x_hat = u.relu() * (score >= score.flatten().topk(K * ROWS).values[-1]) @ rows + bias
    return missed(model, x, x_hat) + aux_k(x - x_hat, u, score, rows, WIDTH // 2)


CASES: list[tuple[object, Callable]] = [
    (Gated(LATENTS), gated),
    (JumpReLU(LATENTS, revive=0.3), jump_relu),
    (JumpReLU(LATENTS, penalty="tanh"), jump_relu),
    (JumpReLU(LATENTS, target_l0=2.0), jump_relu),
    (PAnnealing(LATENTS), p_annealing),
    (Matryoshka(LATENTS, k=K, k_aux=2), matryoshka),
    (MultiTopK(LATENTS, k=K), multi_top_k),
    (Transcoder(LATENTS), transcoder),
    (SkipTranscoder(LATENTS, k=K), skip_transcoder),
    (Crosscoder(LATENTS, k=K, views=2), crosscoder),
    (Crosscoder(LATENTS, k=K, sparsity=0.5, views=2), crosscoder),
]


def gradients(model):
    return {name: p.grad for name, p in model.named_parameters()}


@pytest.mark.parametrize("dense_from", [0.0, 1.1], ids=["dense", "sparse"])
@pytest.mark.parametrize(("preset", "oracle"), CASES, ids=lambda c: getattr(c, "name", ""))
def test_loss_and_gradients_equal_the_formulas(preset, oracle, dense_from, monkeypatch):
    monkeypatch.setattr(steps, "DENSE_FROM", dense_from)
    model, x, y = start(preset)
    step = forward(model, Given(x, DEAD, 0.5, y=y, state=STATE))
    assert step.dense == (dense_from == 0.0 and not model.selection.has_budget)
    loss = torch.stack([objective(step) for objective in preset.objectives()]).sum()
    loss.backward()
    found = gradients(model)
    model.zero_grad()
    targets = [] if model.target is None else [model.target(y)]
    expected = oracle(preset, model, model.normaliser(x), *targets)
    expected.backward()
    torch.testing.assert_close(loss, expected)
    torch.testing.assert_close(found, gradients(model))


AUXILIARY = [preset for preset, _ in CASES if any(isinstance(o, ResidualAux) for o in preset.objectives())]


@pytest.mark.parametrize("preset", AUXILIARY, ids=lambda p: p.name)
def test_the_auxiliary_loss_reaches_the_rows_of_dead_latents_and_only_those(preset):
    model, x, y = start(preset)
    (auxiliary,) = (o for o in preset.objectives() if isinstance(o, ResidualAux))
    auxiliary(forward(model, Given(x, DEAD, 0.5, y=y, state=STATE))).backward()
    for gradient in (model.encoder.weight.grad, model.encoder.bias.grad.unsqueeze(1), model.decoder.rows().grad):
        reached = gradient.abs().sum(1) > 0
        assert reached[DEAD].all() and reached.sum() == len(DEAD)
    assert float(auxiliary(forward(model, Given(x, DEAD[:0], 0.5, y=y, state=STATE)))) == 0.0
