"""The testbed: real states whose origin and behaviour are right and whose splits share no problem."""

from dataclasses import replace
from random import Random

import pytest
import torch

from overtone.core.sites import Site
from overtone.data.traces import cut_steps, delimiter_ids
from overtone.dictionaries.presets.pca import PCA
from overtone.evaluate.testbed import reasoner_states


@pytest.fixture(scope="module")
def states():
    return reasoner_states(["residual.1", "mlp_neurons.1"], 12)


def test_rows_are_the_tokens_of_the_responses(states):
    n = sum(len(t.response_ids) for t in states.traces)
    assert {len(x) for x in states.x.values()} == {n} == {len(states.labels)}
    assert states.x[Site.parse("mlp_neurons.1")].shape[1] > states.x[Site.parse("residual.1")].shape[1]


def test_each_row_has_the_behaviour_of_the_step_it_lies_in(states):
    delimiters = delimiter_ids(states.model.tokenizer)
    spans = {t.document: cut_steps(t, delimiters) for t in states.traces}
    seen = set()
    for row in range(0, len(states.where), 7):
        document, token, step = (
            int(part[row]) for part in (states.where.document, states.where.token, states.where.step)
        )
        span = spans[document][step]
        if token < span.end:
            assert span.start <= token, "a row before its step"
        assert states.labels[row] == states.traces[document].meta["behaviours"][step]
        seen.add(states.labels[row])
    assert len(seen) >= 3


def test_no_problem_lies_on_both_sides_and_seeds_split_differently(states):
    train, held_out = states.split(0)
    groups = states.groups
    assert not {groups[i] for i in train.tolist()} & {groups[i] for i in held_out.tolist()}
    assert len(train) + len(held_out) == len(groups)
    assert not torch.equal(train, states.split(1)[0])
    sample = states.sample("residual.1", 0)
    assert torch.equal(sample.held_out, states.x[Site.parse("residual.1")][held_out])


def test_latents_recognise_behaviours_and_shuffled_behaviours_are_not_recognised(states):
    x = states.sample("residual.1", 0).train
    dictionary = PCA(16).fitted(x, torch.Generator().manual_seed(0))
    found = states.recognition(dictionary, "residual.1", 0)
    assert found == states.recognition(dictionary, "residual.1", 0)
    names = list(states.labels)
    Random(0).shuffle(names)
    by_chance = replace(states, labels=tuple(names)).recognition(dictionary, "residual.1", 0)
    assert abs(by_chance - 0.5) < 0.06 and found > by_chance + 0.05
