"""Truth: what the generator wrote is what the parser says; what it could not write has no label."""

from random import Random

import pytest

from overtone.core.errors import DataError
from overtone.data.countdown.grammar import BEHAVIOURS
from overtone.data.countdown.policy import write_trace
from overtone.data.countdown.problems import split_problems
from overtone.interpret.labels.truth import label_steps, read_reports


def written(spoken, n=20):
    rng, pool = Random(0), split_problems(held_out=True)
    policies = [t for t in (write_trace(rng.choice(pool), rng, wording="all") for _ in range(n)) if t]
    traces = []
    for i, t in enumerate(policies):
        meta = {"numbers": list(t.problem.numbers), "target": t.problem.target, "kind": t.problem.kind}
        traces.append(spoken.trace([s.text for s in t.steps], i, meta))
    return policies, traces


def test_every_written_step_has_the_behaviour_it_was_written_as(spoken):
    policies, traces = written(spoken)
    found = label_steps(traces, spoken.spans(traces), spoken.decode)
    assert found.labels == tuple(tuple(s.behaviour for s in t.steps) for t in policies)
    assert found.failures == 0 and found.names == BEHAVIOURS and "parser" in found.source


def test_reports_say_whether_traces_are_right(spoken):
    policies, traces = written(spoken)
    reports = read_reports(traces, spoken.spans(traces), spoken.decode)
    assert [r.correct for r in reports] == [t.correct for t in policies]


def test_what_fits_no_sentence_is_a_failure_not_a_label(spoken):
    traces = [spoken.trace(["let us eat", "we want banana"], 0, {"numbers": [4, 6, 9], "target": 30})]
    found = label_steps(traces, spoken.spans(traces), spoken.decode)
    assert found.labels == ((None, None),) and found.failures == 2


def test_other_models_traces_are_sent_to_other_ways_of_labelling(spoken):
    traces = [spoken.trace(["let us eat"])]
    with pytest.raises(DataError, match="use the keyword rule or a judge"):
        label_steps(traces, spoken.spans(traces), spoken.decode)
