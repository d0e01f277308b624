"""Twins: equal seeds are equal models, other seeds are not, and training teaches them something."""

import math

import pytest
import torch

from overtone.evaluate.twins import layer_states, train_twin
from overtone.models.reasoner import bundled_reasoner


@pytest.fixture(scope="module")
def tokenizer():
    return bundled_reasoner().tokenizer


def test_twins_differ_by_their_seed_alone_and_learn(tokenizer):
    before = torch.random.get_rng_state()
    options = {"updates": 20, "batch": 4, "width": 16, "layers": 2}
    (first, loss), (again, _), (other, _) = (train_twin(seed, tokenizer, **options) for seed in (0, 0, 1))
    assert first.fingerprint == again.fingerprint != other.fingerprint
    assert loss < math.log(len(tokenizer)) - 0.2, "below the loss of guessing"
    assert torch.equal(torch.random.get_rng_state(), before)


def test_states_of_all_layers_have_one_row_per_token_of_a_response(tokenizer):
    from random import Random

    from overtone.data.countdown.problems import split_problems
    from overtone.data.countdown.tokens import written_traces

    model, _ = train_twin(0, tokenizer, updates=1, batch=1, width=16, layers=2)
    traces = written_traces(split_problems(held_out=False), 3, tokenizer.get_vocab(), Random(0))
    batch = layer_states(model, traces)
    assert len(batch.x) == 2 and len(batch) == sum(len(t.response_ids) for t in traces)
