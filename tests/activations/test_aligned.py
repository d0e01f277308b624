"""Two models over the same tokens: their rows lie beside each other, and nothing else is put beside anything."""

import pytest
import torch

from overtone.activations.aligned import AlignedSources
from overtone.activations.array import ArraySource
from overtone.activations.positions import AllTokens, LastToken
from overtone.activations.source import ActivationSource
from overtone.activations.store import collect
from overtone.activations.stream import ActivationStream
from overtone.core.errors import DataError, SettingError, SiteError
from overtone.core.sites import Site, parse_sites
from overtone.dictionaries.presets.crosscoder import Crosscoder
from overtone.evaluate.diffing import relative_norms
from overtone.training.fit import fit

SITE = Site("residual", 1)
BASE, CHAT = parse_sites("base:residual.1+chat:residual.1")


def stream(model, traces, positions=None, **options):
    return ActivationStream(model, traces, SITE, positions or AllTokens(), quiet=True, **options)


@pytest.fixture(scope="module")
def chat():
    from transformers import GPT2Config, GPT2LMHeadModel

    from overtone.models.hooked import HookedModel

    sizes = {"n_layer": 2, "n_embd": 24, "n_head": 2, "vocab_size": 40, "n_positions": 64}
    torch.manual_seed(1)
    return HookedModel.wrap(GPT2LMHeadModel(GPT2Config(**sizes)).eval(), name="chat")


@pytest.fixture
def pair(model, chat, traces):
    return {"base": stream(model, traces), "chat": stream(chat, traces)}


def same(a, b):
    return all(torch.equal(getattr(a.where, c), getattr(b.where, c)) for c in ("document", "token", "step")) and all(
        torch.allclose(a.at(site), b.at(site), rtol=1e-4, atol=1e-5) for site in (BASE, CHAT)
    )


@pytest.mark.parametrize("seed", [None, 3])
def test_rows_of_two_models_meet_where_they_come_from_the_same_token(pair, seed):
    both = AlignedSources(pair)
    assert isinstance(both, ActivationSource) and both.sites == (BASE, CHAT)
    assert both.widths == {BASE: 16, CHAT: 24} and both.n_rows == pair["base"].n_rows
    single = {name: list(source.batches(50, seed=seed)) for name, source in pair.items()}
    for number, batch in enumerate(both.batches(50, seed=seed)):
        assert torch.equal(batch.at(BASE), single["base"][number].at(SITE))
        assert torch.equal(batch.at(CHAT), single["chat"][number].at(SITE))
    assert sum(map(len, single["base"])) == both.n_rows


def test_a_stream_and_a_store_may_lie_beside_each_other(pair, tmp_path):
    both, stored = AlignedSources(pair), collect(tmp_path, pair["chat"], quiet=True)
    mixed = AlignedSources({"base": pair["base"], "chat": stored})
    assert same(mixed.all(), both.all())
    assert all(same(a, b) for a, b in zip(mixed.batches(50, seed=1), both.batches(50, seed=1), strict=True))
    assert mixed.fingerprint != both.fingerprint == AlignedSources(pair).fingerprint


def test_a_crosscoder_reads_one_site_of_two_models(pair, chat):
    fitted = fit(
        Crosscoder(24, k=4, widths=(16, 24)), AlignedSources(pair), site=(BASE, CHAT), n_tokens=2000, quiet=True
    )
    assert fitted.dictionary.views == (16, 24) and relative_norms(fitted.dictionary).shape == (24,)
    assert fitted.job.label == "crosscoder base:residual.1+chat:residual.1"
    with pytest.raises(SiteError, match=r"Ask chat for its own: residual\.1"):
        chat.width(CHAT)
    with pytest.raises(SettingError, match=r"residual\.1 is named twice.*'base:residual\.1', 'chat:residual\.1'"):
        fit(Crosscoder(24, k=4), pair["base"], site=(SITE, SITE), n_tokens=100)


def test_rows_of_other_tokens_are_refused(pair, model, chat, traces):
    with pytest.raises(SettingError, match="1 sources"):
        AlignedSources({"base": pair["base"]})
    with pytest.raises(DataError, match="over different tokens"):
        AlignedSources({"base": pair["base"], "chat": stream(chat, traces[:-1])})
    with pytest.raises(DataError, match=f"chat {len(traces)}. Read both"):
        AlignedSources({"base": pair["base"], "chat": stream(chat, traces, LastToken())})
    shuffled = AlignedSources({"base": pair["base"], "chat": stream(chat, traces, buffer_rows=8)})
    with pytest.raises(DataError, match="rows of chat do not come from where those of base do"):
        list(shuffled.batches(50, seed=0))
    unknown = ArraySource(torch.randn(pair["base"].n_rows, 4))
    with pytest.raises(DataError, match="rows of other do not come"):
        AlignedSources({"base": pair["base"], "other": unknown}).all()


class Words:
    """A tokenizer with some words, as far as it is asked."""

    def __init__(self, **other):
        self.other = other

    def convert_ids_to_tokens(self, ids):
        return [self.other.get(f"w{i}", f"w{i}") for i in ids]


def test_tokenizers_that_mean_other_tokens_are_refused(pair, model, chat, monkeypatch):
    used = max(i for trace in pair["base"].traces for i in trace.tokens)
    monkeypatch.setattr(model, "tokenizer", Words())
    monkeypatch.setattr(chat, "tokenizer", Words(w999="unused"))
    AlignedSources(pair)
    monkeypatch.setattr(chat, "tokenizer", Words(**{f"w{used}": "other"}))
    with pytest.raises(DataError, match=f"token {used} is 'w{used}' for one and 'other'"):
        AlignedSources(pair)
