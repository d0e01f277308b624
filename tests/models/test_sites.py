"""What the sites of every architecture mean, measured on random-weight miniatures."""

import pytest
import torch
from torch import nn

from models.miniatures import DECODERS, LAYERS, NEURONS, TABLE, VOCABULARY, WIDTH, build, miniature, padded, some_rows
from overtone.core.errors import SiteError
from overtone.core.sites import KINDS, Site
from overtone.models.hooked import HookedModel

CLOSE = {"rtol": 1e-4, "atol": 1e-4}


@pytest.fixture
def tokens():
    return torch.tensor([some_rows()[0], some_rows(seed=2)[0]])


def states(model, tokens, kind, layer=0):
    site = Site(kind, layer)
    return model.read(tokens, None, [site])[site]


def stream_before(model, tokens, layer):
    return states(model, tokens, "residual", layer - 1) if layer else states(model, tokens, "embedding")


@pytest.mark.parametrize("name", TABLE)
def test_every_kind_of_site_is_there_unless_the_block_is_parallel(name):
    kinds = {site.kind for site in miniature(name).sites()}
    assert set(KINDS) - kinds == ({"residual_mid"} if TABLE[name].parallel else set())
    assert len(miniature(name).sites()) == 1 + LAYERS * (len(kinds) - 1)


@pytest.mark.parametrize("name", TABLE)
def test_the_stream_grows_by_what_attention_and_mlp_add(name, tokens):
    model = miniature(name)
    for layer in range(LAYERS):
        before, after = stream_before(model, tokens, layer), states(model, tokens, "residual", layer)
        attention, mlp = states(model, tokens, "attn_out", layer), states(model, tokens, "mlp_out", layer)
        if TABLE[name].post_norm:  # the stream is normed in between: the sum is what enters the norm
            before = states(model, tokens, "residual_mid", layer)
            block = model.model.get_submodule(model.adapter.layers)[layer]
            norm = [module for module in block.modules() if isinstance(module, nn.LayerNorm)][-1]
            torch.testing.assert_close(after, norm(before + mlp), **CLOSE)
        else:
            torch.testing.assert_close(after - before, attention + mlp, **CLOSE)


@pytest.mark.parametrize("name", [name for name in TABLE if not TABLE[name].parallel])
def test_the_stream_between_the_halves_is_what_the_mlp_reads(name, tokens):
    """residual_mid == stream + attn_out, normed where the stream is; and the MLP's norm is fed with it."""
    model = miniature(name)
    for layer in range(LAYERS):
        middle = states(model, tokens, "residual_mid", layer)
        total = stream_before(model, tokens, layer) + states(model, tokens, "attn_out", layer)
        block = model.model.get_submodule(model.adapter.layers)[layer]
        norms = [m for n, m in block.named_modules() if "norm" in n.lower() or n in ("ln_1", "ln_2")]
        if TABLE[name].post_norm:
            torch.testing.assert_close(middle, norms[0](total), **CLOSE)
            torch.testing.assert_close(middle, states(model, tokens, "mlp_in", layer))
        else:
            torch.testing.assert_close(middle, total, **CLOSE)
            feeds = [norm(middle) for norm in norms if norm.weight.shape[0] == WIDTH]
            mlp_in = states(model, tokens, "mlp_in", layer)
            assert any(torch.allclose(fed, mlp_in, **CLOSE) for fed in feeds)


@pytest.mark.parametrize("name", TABLE)
def test_heads_and_neurons_are_what_the_projections_read(name, tokens):
    model = miniature(name)
    for layer in range(LAYERS):
        for inner, outer in (("attn_heads", "attn_out"), ("mlp_neurons", "mlp_out")):
            made = model.module(Site(inner, layer))(states(model, tokens, inner, layer))
            if TABLE[name].norm_after:
                made = model.module(Site(outer, layer))(made)
            torch.testing.assert_close(made, states(model, tokens, outer, layer), **CLOSE)


@pytest.mark.parametrize("name", TABLE)
def test_unembedding_the_last_stream_gives_the_logits(name, tokens):
    model = miniature(name)
    last = states(model, tokens, "residual", LAYERS - 1)
    logits = model.logits(tokens)
    assert logits.shape == (*tokens.shape, VOCABULARY)
    torch.testing.assert_close(model.unembed(last.flatten(0, 1)), logits.flatten(0, 1), **CLOSE)


@pytest.mark.parametrize("name", TABLE)
def test_residuals_are_the_hidden_states_before_the_final_norm(name, tokens):
    """Against the library's own hidden states; its last one is after the final norm, ours before it."""
    model = miniature(name)
    with torch.no_grad():
        hidden = build(name)(tokens, output_hidden_states=True).hidden_states
    torch.testing.assert_close(states(model, tokens, "embedding"), hidden[0])
    for layer in range(LAYERS - 1):
        torch.testing.assert_close(states(model, tokens, "residual", layer), hidden[layer + 1])
    last = states(model, tokens, "residual", LAYERS - 1)
    if last.shape == hidden[-1].shape:  # else the final projection is in it too
        assert torch.allclose(last, hidden[-1]) == TABLE[name].post_norm


@pytest.mark.parametrize("name", TABLE)
def test_widths_are_those_of_the_states(name, tokens):
    model = miniature(name)
    for site, rows in model.read(tokens, None, model.sites()).items():
        assert rows.shape == (*tokens.shape, model.width(site)), site
    assert model.width(Site("residual", 1)) == WIDTH
    assert model.width(Site("mlp_neurons", 1)) == NEURONS
    assert model.width(Site("attn_heads", 1)) == (64 if name == "qwen3" else WIDTH)


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("name", TABLE)
def test_padding_on_either_side_changes_no_state(name, side):
    model = miniature(name)
    rows = some_rows()
    found = model.read(*padded(rows, side), model.sites())
    real = padded(rows, side)[1]
    for i, row in enumerate(rows):
        alone = model.read(torch.tensor([row]), None, model.sites())
        for site in model.sites():
            torch.testing.assert_close(
                found[site][i, real[i]], alone[site][0], **CLOSE, msg=lambda m, s=site: f"{s}: {m}"
            )


@pytest.mark.parametrize("name", TABLE)
def test_a_decoder_knows_that_it_is_one(name, tokens):
    """is_causal is the truth about the states: changing the last token changes an earlier state only in an encoder."""
    model = miniature(name)
    other = tokens.clone()
    other[:, -1] = (other[:, -1] + 1) % VOCABULARY
    same = torch.allclose(states(model, tokens, "residual", 2)[:, :-1], states(model, other, "residual", 2)[:, :-1])
    assert model.is_causal == same == (name in DECODERS)


@pytest.mark.parametrize("name", ["llama", "gpt2", "gpt_neox", "opt", "gemma2", "phi", "bert", "distilbert"])
def test_a_model_without_its_head_has_the_same_sites(name, tokens):
    whole = build(name)
    body = getattr(whole, whole.base_model_prefix)
    model = HookedModel.wrap(body)
    for site, rows in model.read(tokens, None, model.sites()).items():
        torch.testing.assert_close(rows, miniature(name).read(tokens, None, [site])[site])


@pytest.mark.parametrize("name", ["gpt_neox", "phi"])
def test_a_parallel_block_has_no_middle_and_says_why(name):
    with pytest.raises(SiteError, match="side by side"):
        miniature(name).check("residual_mid.0")


def test_sites_are_parsed_and_their_range_named():
    model = miniature("llama")
    assert model.check("blocks.1.hook_resid_post") == Site("residual", 1)
    with pytest.raises(SiteError, match=r"has 3 layers. Use mlp_out.0 to mlp_out.2"):
        model.check("mlp_out.3")
