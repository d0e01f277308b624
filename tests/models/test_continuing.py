"""Going on from a site with gradient: `logits_with`."""

import pytest
import torch

from models.miniatures import DECODERS, LAYERS, TABLE, WIDTH, build, miniature, padded, some_rows
from overtone.core.errors import ShapeError, SiteError
from overtone.core.sites import Site
from overtone.models.hooked import HookedModel


@pytest.fixture
def batch():
    return padded(some_rows(), "left")


@pytest.mark.parametrize("name", TABLE)
def test_going_on_from_what_was_there_gives_the_logits(name, batch):
    model = miniature(name)
    logits = model.logits(*batch)
    for site in (Site("embedding"), Site("residual", 1), Site("mlp_in", 1), Site("attn_out", 2)):
        assert torch.equal(model.logits_with(*batch, site, lambda states: states), logits)


@pytest.mark.parametrize("name", TABLE)
def test_a_pass_that_begins_with_known_states_gives_the_same_logits(name, batch):
    model, double = miniature(name), lambda rows, call: rows * 2
    for site in (Site("embedding"), Site("residual", 0), Site("residual", 2), Site("mlp_in", 1)):
        states, last = model.read(*batch, [site]), Site("residual", 2)
        assert torch.equal(model.logits(*batch, states=states), model.logits(*batch))
        for after in (site, last):
            found = model.logits_with(*batch, after, lambda rows: rows * 1.5, states=states)
            assert torch.equal(found, model.logits_with(*batch, after, lambda rows: rows * 1.5))
        with model.editing({site: double, Site("residual", 1): double} if site != last else {last: double}):
            assert torch.equal(model.logits(*batch, states=states), model.logits(*batch))


@pytest.mark.parametrize("name", DECODERS)
def test_a_cached_step_that_begins_with_known_states_gives_the_same_logits(name, batch):
    (tokens, real), model = batch, miniature(name)
    for site in (Site("residual", 0), Site("residual", LAYERS - 1)):
        states = {site: model.read(tokens, real, [site])[site][:, -1:]}
        expected, _ = model.forward(tokens, real)
        _, cache = model.forward(tokens[:, :-1], real[:, :-1])
        found, _ = model.forward(tokens, real, cache=cache, states=states)
        torch.testing.assert_close(found[:, -1], expected[:, -1], atol=1e-4, rtol=1e-4)
    with pytest.raises(ShapeError, match="states at residual"):
        model.forward(tokens, real, states=states)


def test_blocks_before_known_states_are_left_out_and_come_back(batch):
    model, calls = miniature("llama"), []
    handles = [
        module.register_forward_hook(lambda *_, place=i: calls.append(place))
        for i, module in enumerate(m for n, m in model.model.named_modules() if n.endswith("mlp"))
    ]
    site = Site("residual", 1)
    states = model.read(*batch, [site])
    model.logits(*batch, states=states)  # what is measured once, with passes of its own, is known from here on
    calls.clear()
    with pytest.raises(ZeroDivisionError):
        model.logits_with(*batch, site, lambda _: 1 / 0, states=states)
    assert calls == []
    model.logits_with(*batch, site, lambda rows: rows, states=states)
    assert calls == list(range(2, LAYERS))
    model.logits(*batch)
    assert calls == [*range(2, LAYERS), *range(LAYERS)]
    for handle in handles:
        handle.remove()


def test_the_gradient_is_the_slope():
    """Against finite differences in double precision, at every kind of site."""
    model = HookedModel.wrap(build("gpt2").double())
    tokens = torch.tensor([some_rows()[0]])

    def entropy(push, site):
        logits = model.logits_with(tokens, None, site, lambda states: states + push[: states.shape[-1]], last_only=True)
        return torch.distributions.Categorical(logits=logits[:, -1]).entropy().sum()

    for site in (site for site in model.sites() if site.layer < 2):
        push = torch.zeros(64, dtype=torch.float64, requires_grad=True)
        (slope,) = torch.autograd.grad(entropy(push, site), push)
        towards = torch.randn(64, dtype=torch.float64)
        step = 1e-5 * towards
        measured = (entropy(push + step, site) - entropy(push - step, site)) / 2e-5
        torch.testing.assert_close(slope @ towards, measured.detach(), rtol=1e-4, atol=1e-8)


def test_no_gradient_reaches_the_parameters_or_the_part_before(batch):
    module = build("gpt2")
    model, handed = HookedModel.wrap(module), []
    push = torch.zeros(WIDTH, requires_grad=True)

    def replace(states):
        handed.append(states)
        return states + push

    model.logits_with(*batch, Site("residual", 1), replace).logsumexp(-1).sum().backward()
    assert push.grad.abs().sum() > 0
    assert not handed[0].requires_grad
    assert all(parameter.grad is None and parameter.requires_grad for parameter in module.parameters())


@pytest.mark.parametrize("outside", [True, False])
def test_the_gradient_mode_of_the_caller_stays(batch, outside):
    model, push = miniature("llama"), torch.zeros(WIDTH, requires_grad=True)
    with torch.set_grad_enabled(outside):
        assert model.logits_with(*batch, Site("residual", 1), lambda states: states + push).requires_grad
        with pytest.raises(ZeroDivisionError):
            model.logits_with(*batch, Site("residual", 1), lambda states: 1 / 0)
        assert torch.is_grad_enabled() == outside
    assert all(parameter.requires_grad for parameter in model.model.parameters())


def test_a_replacement_of_another_shape_is_refused(batch):
    with pytest.raises(ShapeError, match=r"replace at residual.1: expected \(4, 9, 32\), got \(4, 9\)"):
        miniature("llama").logits_with(*batch, Site("residual", 1), lambda states: states.sum(-1))


def test_states_that_do_not_belong_to_the_pass_are_refused(batch):
    model, site = miniature("llama"), Site("residual", 1)
    states = model.read(*batch, [site])[site]
    with pytest.raises(
        ShapeError, match=r"states at residual.1: expected \(4, 9, 32\), as read gives them, got \(4, 3"
    ):
        model.logits(*batch, states={site: states[:, :3]})
    with pytest.raises(SiteError, match=f"{LAYERS} layers"):
        model.logits(*batch, states={Site("residual", LAYERS): states})
