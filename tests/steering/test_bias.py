"""The baseline without states: what it does to logits, and how close it comes to steering the last block."""

import pytest
import torch

from models.miniatures import LAYERS, VOCABULARY, WIDTH, miniature, some_rows
from overtone.core.errors import DataError, SettingError, ShapeError
from overtone.core.sites import Site
from overtone.data.traces import ReasoningTrace
from overtone.directions import random_like, unit_direction
from overtone.steering.bias import LogitBias, bias_of, keyword_penalty
from overtone.steering.edits.add import Add
from overtone.steering.generate import generate
from overtone.steering.steer import Steering, steered
from overtone.steering.when import When

LAST = Site("residual", LAYERS - 1)
ALWAYS = When(phases={"prompt", "generation"})
PROMPTS = some_rows((6, 3, 5, 2))


def test_the_bias_of_a_small_step_at_the_last_block_is_what_it_does_to_the_logits(generator):
    model = miniature("llama")
    tokens = torch.randint(3, VOCABULARY, (1, 1))
    rows = model.read(tokens, None, [LAST])[LAST][0]
    d = unit_direction(torch.randn(WIDTH, generator=generator), LAST)
    bias = bias_of(model, d, 0.5, final_rows=rows)
    with steered(model, [Steering(d, Add(0.5), ALWAYS)]):
        after = model.logits(tokens)[0, -1].log_softmax(-1)
    biased = (model.logits(tokens)[0, -1] + bias.vector).log_softmax(-1)
    torch.testing.assert_close(biased, after, atol=1e-4, rtol=1e-4)  # exact here: the bias was made at this very state


def test_on_other_states_it_is_close_and_a_random_one_is_not(generator):
    model = miniature("llama")
    tokens = torch.randint(3, VOCABULARY, (64, 4), generator=generator)
    rows = model.read(tokens, None, [LAST])[LAST][:, -1]
    d = unit_direction(torch.randn(WIDTH, generator=generator), LAST)
    strength = 0.3 * float(rows.norm(dim=1).mean())
    with steered(model, [Steering(d, Add(strength), ALWAYS)]):
        after = model.logits(tokens)[:, -1]
    change = after - model.logits(tokens)[:, -1]
    change = change - change.mean(1, keepdim=True)

    def likeness(direction):
        vector = bias_of(model, direction, strength, final_rows=rows).vector
        return float(torch.cosine_similarity(change, vector[None], dim=1).mean())

    assert likeness(d) > 0.6 > abs(likeness(random_like(d, generator)))


def test_only_the_masked_positions_are_biased(generator):
    logits = torch.randn(2, 3, VOCABULARY, generator=generator)
    mask = torch.tensor([[True, False, True], [False, False, False]])
    bias = LogitBias(torch.ones(VOCABULARY).cumsum(0))
    out = bias.biased(logits, mask)
    assert torch.equal(out[~mask], logits[~mask])
    torch.testing.assert_close(out[mask], logits[mask] + bias.vector)
    torch.testing.assert_close(bias.scaled(2.0).biased(logits, mask)[mask], logits[mask] + 2 * bias.vector)


def test_penalised_words_become_rare():
    model = miniature("llama")
    plain = generate(model, PROMPTS * 8, max_new_tokens=12, eos=())
    common = torch.bincount(torch.tensor([t.response_ids for t in plain]).flatten()).topk(3).indices.tolist()
    penal = generate(model, PROMPTS * 8, max_new_tokens=12, eos=(), steering=[keyword_penalty(model, common, -8.0)])
    count = lambda traces: sum(i in common for t in traces for i in t.response_ids)  # noqa: E731
    assert count(penal) < count(plain) / 4
    assert all(isinstance(t, ReasoningTrace) and t.meta["n_edited"] == 12 for t in penal)


def test_a_bias_of_another_vocabulary_and_unknown_words_are_refused():
    model = miniature("llama")
    with pytest.raises(ShapeError, match="vocabulary of 97"):
        generate(model, PROMPTS, max_new_tokens=2, steering=[LogitBias(torch.zeros(5))])
    with pytest.raises(SettingError, match="no token ids"):
        keyword_penalty(model, [])
    with pytest.raises(DataError, match="97 entries"):
        keyword_penalty(model, [97])
    with pytest.raises(DataError, match="no rows"):
        bias_of(model, unit_direction(torch.ones(WIDTH), LAST), 1.0, final_rows=torch.empty(0, WIDTH))
