"""Cached decoding: equal to running the whole text, whatever edits apply and whatever the batch holds."""

import pytest
import torch

from models.miniatures import DECODERS, ENCODERS, build, miniature, padded, some_rows
from overtone.core.errors import ModelError, ShapeError
from overtone.core.sites import Site
from overtone.models.decoding import select_rows
from overtone.models.hooked import HookedModel

STEPS = 8
EDITED = (Site("residual", 1), Site("mlp_out", 2), Site("attn_heads", 0))


def by_history(states, call):
    """An edit that depends on all tokens so far and on the phase: strength = share of even real tokens up to here."""
    even = ((call.tokens % 2 == 0) & call.real).long().cumsum(1) / call.real.long().cumsum(1).clamp_min(1)
    strength = even + (torch.arange(call.tokens.shape[1]) >= call.prompt_columns)
    direction = torch.linspace(-1, 1, states.shape[-1])
    return states + strength[:, call.start :, None] * direction


def decode(model, tokens, real, *, cached):
    """Greedy tokens and the logits they came from, step by step."""
    prompt, cache, seen = tokens.shape[1], None, []
    for _ in range(STEPS):
        logits, cache = model.forward(tokens, real, cache=cache if cached else None, prompt_columns=prompt)
        seen.append(logits[:, -1])
        tokens = torch.cat([tokens, logits[:, -1].argmax(-1, keepdim=True)], dim=1)
        real = torch.cat([real, torch.ones(len(real), 1, dtype=torch.bool)], dim=1)
    return tokens[:, prompt:], torch.stack(seen, dim=1)


@pytest.mark.parametrize("lengths", [(6,), (9, 4, 7, 1)], ids=["one row", "four rows"])
@pytest.mark.parametrize("name", DECODERS)
def test_cached_decoding_equals_uncached_under_edits(name, lengths):
    model = miniature(name)
    batch = padded(some_rows(lengths), "left")
    with model.editing({site: by_history for site in EDITED}):
        cached, uncached = decode(model, *batch, cached=True), decode(model, *batch, cached=False)
    assert torch.equal(cached[0], uncached[0])
    torch.testing.assert_close(cached[1], uncached[1], rtol=1e-4, atol=1e-4)


def test_a_finished_text_run_at_once_has_the_logits_and_states_it_was_decoded_with():
    model, site = miniature("llama"), Site("residual", 2)
    tokens, real = padded(some_rows(), "left")
    with model.editing({edited: by_history for edited in EDITED}):
        written, logits = decode(model, tokens, real, cached=True)
        whole = torch.cat([tokens, written], dim=1)
        all_real = torch.cat([real, torch.ones_like(written, dtype=torch.bool)], dim=1)
        again = model.logits(whole, all_real, prompt_columns=tokens.shape[1])
        last = model.read(whole, all_real, [site], prompt_columns=tokens.shape[1])[site][:, -1]
    torch.testing.assert_close(again[:, tokens.shape[1] - 1 : -1], logits, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(model.unembed(last), again[:, -1], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", DECODERS)
def test_a_row_decodes_the_same_alone_and_in_company(name):
    model, rows = miniature(name), some_rows()
    with model.editing({site: by_history for site in EDITED}):
        tokens, logits = decode(model, *padded(rows, "left"), cached=True)
        for i, row in enumerate(rows):
            alone = decode(model, *padded([row], "left"), cached=True)
            assert torch.equal(alone[0][0], tokens[i])
            torch.testing.assert_close(alone[1][0], logits[i], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", ["llama", "gemma2", "mistral", "gpt2", "opt"])
def test_rows_can_leave_the_batch(name):
    model = miniature(name)
    tokens, real = padded(some_rows((9, 8, 3, 12)), "left")
    whole = model.forward(tokens, real)[0]
    cache, at, keep = None, 0, torch.tensor([0, 1, 2, 3])
    for seen, left in ((5, [0, 1, 2, 3]), (6, [0, 2, 3]), (9, [2, 1]), (12, [0, 1])):
        logits, cache = model.forward(tokens[keep, :seen], real[keep, :seen], cache=cache)
        good = real[keep, at:seen]
        torch.testing.assert_close(logits[good], whole[keep, at:seen][good], rtol=1e-4, atol=1e-4)
        cache, keep, at = select_rows(cache, torch.tensor(left)), keep[left], seen
    assert (cache.rows, cache.columns) == (2, 12)


@pytest.mark.parametrize("name", ["llama", "gpt_neox", "opt"])
def test_greedy_decoding_is_the_librarys_own(name):
    model = miniature(name)
    tokens, real = padded(some_rows(), "left")
    ours, _ = decode(model, tokens, real, cached=True)
    theirs = build(name).generate(
        tokens,
        attention_mask=real.long(),
        max_new_tokens=STEPS,
        min_new_tokens=STEPS,
        do_sample=False,
        eos_token_id=None,
    )
    assert torch.equal(ours, theirs[:, tokens.shape[1] :])


@pytest.mark.parametrize("name", ["llama", "gpt2", "gemma2"])
def test_the_last_column_alone_has_the_same_logits(name):
    model, batch = miniature(name), padded(some_rows(), "left")
    last, _ = model.forward(*batch, last_only=True)
    assert last.shape[1] == 1
    torch.testing.assert_close(last[:, 0], model.forward(*batch)[0][:, -1])


def test_many_steps_outgrow_the_room_of_the_cache():
    model = miniature("llama")
    tokens = torch.tensor([some_rows((60,))[0]])
    whole, cache, pieces = model.forward(tokens)[0], None, []
    for seen in range(1, 61):
        piece, cache = model.forward(tokens[:, :seen], cache=cache)
        pieces.append(piece)
    torch.testing.assert_close(torch.cat(pieces, dim=1), whole, rtol=1e-4, atol=1e-4)


def test_decoding_keeps_no_graph():
    logits, cache = miniature("llama").forward(*padded(some_rows(), "left"))
    assert not logits.requires_grad and not cache.past.layers[0].keys.requires_grad


@pytest.mark.parametrize("name", ENCODERS)
def test_an_encoder_gives_logits_but_does_not_generate(name):
    batch = padded(some_rows(), "right")
    assert miniature(name).logits(*batch).shape == (4, 9, 97)
    with pytest.raises(ModelError, match="encoder: it does not generate"):
        miniature(name).forward(*batch)


def test_a_model_without_head_has_no_logits():
    model = HookedModel.wrap(build("llama").model)
    for ask in (model.logits, model.forward, lambda tokens: model.unembed(torch.zeros(1, 32))):
        with pytest.raises(ModelError, match="no vocabulary head"):
            ask(torch.tensor([[3, 4]]))


def test_a_cache_of_another_history_is_refused():
    model = miniature("llama")
    tokens, real = padded(some_rows(), "left")
    _, cache = model.forward(tokens[:, :5], real[:, :5])
    for wrong in (tokens[:, :5], tokens[:2], tokens[:, 5:8]):
        with pytest.raises(ShapeError, match="4 rows of 5 columns; tokens is the full history"):
            model.forward(wrong, cache=cache)
