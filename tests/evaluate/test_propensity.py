"""Propensity: probabilities where steps begin, before and after an edit of known effect."""

import pytest
import torch

from overtone.core.errors import DataError
from overtone.data.traces import cut_steps
from overtone.directions.direction import unit_direction
from overtone.evaluate.propensity import effect_at_kl, openings, propensities
from overtone.evaluate.testbed import reasoner_states
from overtone.steering.edits.add import Add
from overtone.steering.steer import Steering


@pytest.fixture(scope="module")
def states():
    return reasoner_states(["residual.5"], 12)


@pytest.fixture(scope="module")
def kinds(states):
    return openings(states.traces, states.spans, {t.document: t.meta["behaviours"] for t in states.traces}, n_min=3)


def test_openings_begin_steps_of_their_kind(states, kinds):
    assert len(kinds) >= 2 and not frozenset.intersection(*kinds.values())
    seen = {kind: [] for kind in kinds}
    for trace in states.traces:
        for span, label in zip(states.spans[trace.document], trace.meta["behaviours"], strict=True):
            for kind, ids in kinds.items():
                if trace.tokens[span.start] in ids:
                    seen[kind].append(label == kind)
    assert all(len(right) >= 3 and sum(right) >= 0.8 * len(right) for right in seen.values())


def test_a_propensity_is_the_models_own_probability(states, kinds):
    trace = states.traces[0]
    found = propensities(states.model, [trace], states.spans, kinds)
    tokens = torch.tensor([trace.tokens])
    logits, _ = states.model.forward(tokens, torch.ones_like(tokens, dtype=torch.bool))
    spans = cut_steps(trace, frozenset([states.model.tokenizer.get_vocab()["\n\n"]]))
    for kind, ids in kinds.items():
        logs = [logits[0, s.before].log_softmax(0)[sorted(ids)].logsumexp(0) for s in spans]
        assert found[kind] == pytest.approx(float(torch.stack(logs).mean()), abs=1e-3)


def test_pushing_towards_an_openings_logit_makes_it_likelier(states, kinds):
    """At the last layer a state's product with a word's output row is that word's logit."""
    kind, ids = next(iter(kinds.items()))
    head = states.model.model.get_output_embeddings().weight.detach()
    direction = unit_direction(head[sorted(ids)].mean(0), "residual.5")
    traces = states.traces[:4]
    assert effect_at_kl(states.model, traces, states.spans, kinds, kind, direction, 0.2) > 0.1
    away = [Steering(direction, Add(-2.0))]
    assert (
        propensities(states.model, traces, states.spans, kinds, away)[kind]
        < propensities(states.model, traces, states.spans, kinds)[kind]
    )


def test_traces_without_steps_are_refused(states, kinds):
    with pytest.raises(DataError, match="no step begins"):
        propensities(states.model, states.traces[:1], {0: []}, kinds)
