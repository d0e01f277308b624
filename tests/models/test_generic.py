"""Architectures nobody described: guessed, checked, or refused with what to give."""

import pytest
import torch
from torch import nn

from models.miniatures import TABLE, build, miniature, padded, some_rows
from overtone.core.errors import ModelError, SiteError
from overtone.core.sites import Site
from overtone.models import generic
from overtone.models.adapter import Adapter
from overtone.models.hooked import HookedModel


class Half(nn.Module):
    def __init__(self, width, inner):
        super().__init__()
        self.up, self.down = nn.Linear(width, inner), nn.Linear(inner, width)

    def forward(self, states):
        return self.down(self.up(states).relu())


class Block(nn.Module):
    """A block under unusual names; its "mixing" is a running mean of earlier states."""

    def __init__(self):
        super().__init__()
        self.mixing, self.thinking = Half(8, 6), Half(8, 12)

    def forward(self, states):
        mean = states.cumsum(1) / torch.arange(1, states.shape[1] + 1)[:, None]
        states = states + self.mixing(mean)
        return states + self.thinking(states)


class Odd(nn.Module):
    """A small causal model of plain torch, without a config."""

    def __init__(self, blocks=2):
        super().__init__()
        self.words, self.tower = nn.Embedding(11, 8), nn.ModuleList([Block() for _ in range(blocks)])
        self.last, self.out = nn.LayerNorm(8), nn.Linear(8, 11)

    def forward(self, tokens):
        states = self.words(tokens)
        for block in self.tower:
            states = block(states)
        return self.out(self.last(states))


ODD = Adapter(
    layers="tower", attention="mixing", mlp="thinking", final_norm="last", head="out",
    attn_heads="mixing.down", mlp_neurons="thinking.down",
)  # fmt: skip
TOKENS = torch.tensor([[1, 5, 2, 9], [3, 3, 7, 10]])


@pytest.fixture
def odd():
    return Odd().eval()


def test_an_adapter_given_by_hand_opens_every_site(odd):
    model = HookedModel.wrap(odd, adapter=ODD)
    states = model.read(TOKENS, None, model.sites())
    grown = states[Site("residual", 0)] + states[Site("attn_out", 1)] + states[Site("mlp_out", 1)]
    torch.testing.assert_close(states[Site("residual", 1)], grown)
    last = states[Site("residual", 1)].flatten(0, 1)
    torch.testing.assert_close(model.unembed(last), model.logits(TOKENS).flatten(0, 1))
    assert (model.name, model.vocab_size, model.width("mlp_neurons.1")) == ("Odd", 11, 12)


def test_unknown_names_still_give_the_stream(odd):
    """Blocks are found by structure; halves under unusual names are absent, with the reason."""
    model = HookedModel.wrap(odd)
    assert [str(site) for site in model.sites()] == ["embedding", "residual.0", "residual.1"]
    assert model.is_causal
    by_hand = HookedModel.wrap(odd, adapter=ODD)
    for site, rows in model.read(TOKENS, None, model.sites()).items():
        assert torch.equal(rows, by_hand.read(TOKENS, None, [site])[site])
    with pytest.raises(SiteError, match=r"names no module for it. Give Adapter\(mlp_out=...\)"):
        model.check("mlp_out.0")


def test_a_plain_module_takes_no_padding_and_no_cache(odd):
    model = HookedModel.wrap(odd, adapter=ODD)
    real = torch.tensor([[False, True, True, True], [True] * 4])
    with pytest.raises(ModelError, match="cannot be padded"):
        model.read(TOKENS, real, [Site("residual", 0)])
    with pytest.raises(ModelError, match="keeps no key-value cache"):
        model.forward(TOKENS)


@pytest.mark.parametrize("name", TABLE)
def test_every_known_architecture_is_guessed_right_where_a_guess_is_offered(name):
    """The generic path on models whose truth is known: it may offer fewer sites, never one that means another thing."""
    guess = HookedModel.wrap(build(name), adapter=generic.by_structure(build(name)))
    model = HookedModel.wrap(build(name), adapter=generic.verified(guess))
    batch = padded(some_rows(), "right")
    truth = miniature(name)
    for site, rows in model.read(*batch, model.sites()).items():
        torch.testing.assert_close(rows[batch[1]], truth.read(*batch, [site])[site][batch[1]], rtol=1e-4, atol=1e-4)
    assert model.is_causal == truth.is_causal
    offered = {site.kind for site in model.sites()}
    assert {"embedding", "residual"} <= offered
    if not TABLE[name].post_norm and name != "opt":  # OPT keeps its MLP in the block itself
        assert offered == {site.kind for site in truth.sites()}
    rows = torch.randn(5, 32)
    if "unembed" not in model.adapter.absent:
        torch.testing.assert_close(model.unembed(rows), truth.unembed(rows))


def test_a_softcap_nobody_told_of_closes_the_logit_lens():
    guess = HookedModel.wrap(build("gemma2"), adapter=generic.by_structure(build("gemma2")))
    model = HookedModel.wrap(build("gemma2"), adapter=generic.verified(guess))
    with pytest.raises(ModelError, match="no logit lens"):
        model.unembed(torch.zeros(1, 32))


def test_a_model_without_clear_blocks_is_told_what_to_give():
    flat = nn.Sequential(nn.Embedding(5, 4), nn.Linear(4, 5))
    with pytest.raises(
        ModelError, match=r"no list of like blocks.*Adapter\(layers=..., attention=..., mlp=..., final_norm"
    ):
        HookedModel.wrap(flat)
    twins = nn.ModuleDict({"left": Odd(), "right": Odd()})
    with pytest.raises(ModelError, match=r"several lists.*left.tower \(2 x Block\), right.tower \(2 x Block\)"):
        HookedModel.wrap(twins)


def test_wrong_paths_are_named_with_the_nearest_right_one(odd):
    with pytest.raises(ModelError, match="layers='towr' is no module of Odd. Did you mean 'tower'?"):
        HookedModel.wrap(odd, adapter=Adapter(layers="towr"))
    with pytest.raises(ModelError, match="attention='mixin'.*Did you mean 'mixing'?"):
        HookedModel.wrap(odd, adapter=Adapter(layers="tower", attention="mixin"))
    with pytest.raises(ModelError, match="holds no blocks"):
        HookedModel.wrap(odd, adapter=Adapter(layers="words"))
