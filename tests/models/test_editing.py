"""Reading and editing while a model runs: what they change, what they leave alone, what they leave behind."""

import pytest
import torch

from models.miniatures import LAYERS, TABLE, WIDTH, build, miniature, padded, some_rows
from overtone.core.errors import DataError, ModelError, SettingError, ShapeError, SiteError
from overtone.core.sites import Site
from overtone.models.hooked import HookedModel


@pytest.fixture
def batch():
    return padded(some_rows(), "left")


@pytest.fixture
def push():
    """An editor that adds the same random vector to every state."""
    vector = torch.randn(64)
    return lambda states, call: states + vector[: states.shape[-1]]


def hooks(module):
    return sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in module.modules())


# ------------------------------------------------------------------------------------------------------------- editing
@pytest.mark.parametrize("name", TABLE)
def test_an_editor_that_changes_nothing_changes_no_bit(name, batch):
    model = miniature(name)
    logits = model.logits(*batch)
    for nothing in (lambda states, call: states, lambda states, call: states.clone()):
        with model.editing({site: nothing for site in model.sites()}):
            assert torch.equal(model.logits(*batch), logits)


@pytest.mark.parametrize("name", TABLE)
def test_an_edit_at_every_site_shows_when_it_is_read_and_changes_the_logits(name, batch, push):
    model = miniature(name)
    logits, before = model.logits(*batch), model.read(*batch, model.sites())
    for site in model.sites():
        with model.editing({site: push}):
            seen = model.read(*batch, [site])[site]
            steered = model.logits(*batch)
        torch.testing.assert_close(seen, push(before[site], None), rtol=1e-4, atol=1e-4)
        assert not torch.allclose(steered, logits, atol=1e-3), site
    assert torch.equal(model.logits(*batch), logits)


@pytest.mark.parametrize("name", [name for name in TABLE if not TABLE[name].post_norm])
def test_what_is_added_to_a_half_is_added_to_the_stream(name, batch, push):
    """Adding to attn_out is adding to residual_mid, adding to mlp_out is adding to residual."""
    model = miniature(name)
    pairs = (
        [("mlp_out", "residual")] if TABLE[name].parallel else [("mlp_out", "residual"), ("attn_out", "residual_mid")]
    )
    for added, stream in pairs:
        with model.editing({Site(added, 1): push}):
            one = model.logits(*batch)
        with model.editing({Site(stream, 1): push}):
            torch.testing.assert_close(model.logits(*batch), one, rtol=1e-4, atol=1e-4)


def test_replacing_a_state_by_another_runs_states_makes_the_two_runs_agree(batch):
    """The whole future of a run goes through the stream: with it swapped, the logits are the other run's."""
    model = miniature("llama")
    tokens, real = batch
    other = torch.where(real, (tokens + 5) % 97, tokens)
    swapped = model.read(other, real, [Site("residual", 1)])[Site("residual", 1)]
    with model.editing({Site("residual", 1): lambda states, call: swapped}):
        assert torch.equal(model.logits(tokens, real), model.logits(other, real))


def test_edits_stack_in_order_and_nested_blocks_come_later(batch):
    model, site = miniature("llama"), Site("residual", 1)
    plain = model.read(*batch, [site])[site]
    with model.editing({site: [lambda h, c: h + 1, lambda h, c: 3 * h]}), model.editing({site: lambda h, c: h - 2}):
        torch.testing.assert_close(model.read(*batch, [site])[site], 3 * (plain + 1) - 2)
    assert torch.equal(model.read(*batch, [site])[site], plain)


@pytest.mark.parametrize("inner", ["embedding", "residual_mid.0"])
def test_the_stream_between_the_halves_sees_edits_before_the_block(batch, push, inner):
    """Whichever of the two edits comes into force first."""
    model, sites = miniature("llama"), [Site("embedding"), Site("residual_mid", 0)]
    seen = {}

    def look(states, call):
        seen["middle"] = states.clone()
        return states

    editors = dict(zip(sites, [push, look], strict=True))
    late = Site.parse(inner)
    (early,) = set(sites) - {late}
    with model.editing({early: editors[early]}), model.editing({late: editors[late]}):
        found = model.read(*batch, [Site("embedding"), Site("attn_out", 0)])
    torch.testing.assert_close(seen["middle"], found[Site("embedding")] + found[Site("attn_out", 0)])


def test_an_editor_is_told_the_history_and_what_is_prompt(batch):
    model, calls = miniature("llama"), []
    with model.editing({Site("residual", 0): lambda states, call: calls.append(call) or states}):
        _, cache = model.forward(batch[0][:, :-1], batch[1][:, :-1], prompt_columns=5)
        model.forward(*batch, cache=cache, prompt_columns=5)
    assert [(call.start, call.columns, call.prompt_columns) for call in calls] == [(0, 8, 5), (8, 1, 5)]
    assert torch.equal(calls[1].tokens, batch[0]) and torch.equal(calls[1].real, batch[1])


def test_nothing_is_left_behind(batch, push):
    module = build("llama")
    before = {name: value.clone() for name, value in module.state_dict().items()}
    flags = [parameter.requires_grad for parameter in module.parameters()]
    model = HookedModel.wrap(module)

    def fail(states, call):
        raise RuntimeError("editor broke")

    model.read(*batch, model.sites())
    with (
        pytest.raises(RuntimeError, match="editor broke"),
        model.editing({Site("residual", 1): push, Site("mlp_in", 2): fail}),
    ):
        model.logits(*batch)
    model.logits_with(*batch, Site("residual", 1), lambda states: states * 2).sum()
    assert hooks(module) == 0
    assert all(torch.equal(value, before[name]) for name, value in module.state_dict().items())
    assert [parameter.requires_grad for parameter in module.parameters()] == flags
    assert torch.is_grad_enabled()


@pytest.mark.parametrize(
    ("editor", "error", "message"),
    [
        (lambda h, c: h[:, :, :5], ShapeError, r"expected \(4, 9, 32\) torch.float32, got \(4, 9, 5\)"),
        (lambda h, c: h.double(), ShapeError, "got .* torch.float64"),
        (lambda h, c: None, ShapeError, "got NoneType"),
        (lambda h, c: h.add_(1), SettingError, "in place"),
    ],
)
def test_a_wrong_editor_is_told_what_is_expected(batch, editor, error, message):
    model = miniature("llama")
    with pytest.raises(error, match=message), model.editing({Site("residual", 1): editor}):
        model.logits(*batch)


def test_edits_refuse_a_pass_that_goes_around_them(batch, push):
    model = miniature("llama")
    with model.editing({Site("residual", 1): push}), pytest.raises(ModelError, match="call the HookedModel"):
        model.model(batch[0])


def test_a_width_can_be_asked_while_edits_are_in_force():
    model = HookedModel.wrap(build("llama"))
    with model.editing({Site("residual", 0): lambda states, call: 1 / 0}):
        assert model.width("residual.1") == WIDTH


# ------------------------------------------------------------------------------------------------------------- reading
@pytest.mark.parametrize("name", TABLE)
def test_reading_stops_at_the_deepest_site(name, batch):
    module = build(name)
    model = HookedModel.wrap(module)
    blocks = module.get_submodule(model.adapter.layers)
    run = []
    for index, block in enumerate(blocks):
        block.register_forward_pre_hook(lambda module, args, i=index: run.append(i))
    module.get_submodule(model.adapter.head).register_forward_pre_hook(lambda module, args: run.append("head"))
    for sites, expected in (
        ([Site("residual", 1), Site("attn_heads", 0)], [0, 1]),
        ([Site("embedding")], [0]),
        ([Site("mlp_neurons", LAYERS - 1)], [0, 1, 2]),
    ):
        run.clear()
        assert list(model.read(*batch, sites)) == sites
        assert run == expected


def test_one_pass_reads_the_same_as_many(batch):
    model = miniature("gpt2")
    together = model.read(*batch, model.sites())
    for site in model.sites():
        assert torch.equal(model.read(*batch, [site, site])[site], together[site])


def test_what_was_read_is_a_copy_without_gradient(batch):
    model, site = miniature("llama"), Site("residual", 1)
    states = model.read(*batch, [site])[site]
    states += 1
    assert not states.requires_grad and not torch.equal(states, model.read(*batch, [site])[site])


def test_a_text_longer_than_the_positions_is_refused():
    with pytest.raises(DataError, match="a row has 65 tokens; .* takes at most 64"):
        miniature("gpt2").read(torch.full((1, 65), 3), None, [Site("residual", 0)])


@pytest.mark.parametrize(
    ("tokens", "real", "error", "message"),
    [
        (torch.tensor([[3, 97]]), None, DataError, "run from 3 to 97; .* knows 0 to 96"),
        (torch.tensor([[-1, 5]]), None, DataError, "run from -1"),
        (torch.zeros(0, 4, dtype=torch.int64), None, DataError, r"got \(0, 4\)"),
        (torch.tensor([[3, 4]]), torch.ones(1, 3, dtype=torch.bool), ShapeError, r"got \(1, 3\)"),
    ],
)
def test_unusable_tokens_are_refused(tokens, real, error, message):
    with pytest.raises(error, match=message):
        miniature("llama").read(tokens, real, [Site("residual", 0)])


def test_a_site_that_no_pass_reaches_is_an_error_not_an_empty_result(batch):
    from dataclasses import replace

    model = HookedModel.wrap(build("llama"))
    model.model.unused = torch.nn.ModuleList([torch.nn.Sequential(torch.nn.Linear(2, 2)) for _ in range(3)])
    lost = HookedModel.wrap(
        model.model,
        adapter=replace(model.adapter, layers="unused", attention="", mlp="", attn_heads="", mlp_neurons=""),
    )
    with pytest.raises(SiteError, match="was not called"):
        lost.read(*batch, [Site("residual", 1)])
