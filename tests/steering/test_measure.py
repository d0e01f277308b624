"""KL to the unsteered model: zero for nothing, right by hand, at the positions asked for; strengths of equal KL."""

import math

import pytest
import torch

from models.miniatures import VOCABULARY, WIDTH, miniature, some_rows
from overtone.core.errors import DataError, SettingError
from overtone.data.traces import ReasoningTrace
from overtone.directions import unit_direction
from overtone.steering.bias import LogitBias
from overtone.steering.calibrate import calibrated, strength_for_kl
from overtone.steering.edits.add import Add
from overtone.steering.edits.clamp import Clamp
from overtone.steering.measure import Comparison, lay_out, measure_kl
from overtone.steering.steer import Steering, steered
from overtone.steering.when import When

STEPS = frozenset(range(20, 40))
WHEN = When(after=STEPS)
DIRECTION = unit_direction(torch.randn(WIDTH, generator=torch.Generator().manual_seed(4)), "residual.1")
ROWS = some_rows((12, 9, 15, 10, 3), seed=5)
TRACES = [
    ReasoningTrace(tuple(r[:n]), tuple(r[n:]), i, str(i))
    for i, (r, n) in enumerate(zip(ROWS, (4, 2, 6, 3, 2), strict=True))
]


def add(strength, when=WHEN):
    return [Steering(DIRECTION, Add(strength), when)]


def by_hand(trace, steering, positions):
    """Mean KL over positions of one trace, one text at a time and without any batch."""
    model, tokens = miniature("llama"), torch.tensor(trace.tokens)[None]
    prompt = len(trace.prompt_ids)
    q = model.forward(tokens, prompt_columns=prompt)[0][0].double().log_softmax(-1)
    with steered(model, steering):
        p = model.forward(tokens, prompt_columns=prompt)[0][0].double().log_softmax(-1)
    kl = (p.exp() * (p - q)).sum(-1)
    return float(kl[list(positions)].mean()) if positions else math.nan


def steered_positions(trace):
    return [i for i in range(len(trace.prompt_ids), len(trace.tokens) - 1) if trace.tokens[i] in STEPS]


def test_it_is_the_divergence_computed_text_by_text():
    got = measure_kl(miniature("llama"), TRACES, add(3.0))
    expected = [by_hand(t, add(3.0), steered_positions(t)) for t in TRACES]
    torch.testing.assert_close(got.per_trace, torch.tensor(expected), atol=1e-5, rtol=1e-3, equal_nan=True)
    assert got.n_positions.tolist() == [len(steered_positions(t)) for t in TRACES]
    weighted = sum(e * n for e, n in zip(expected, got.n_positions.tolist(), strict=True) if n) / got.n_positions.sum()
    assert got.mean == pytest.approx(float(weighted), rel=1e-3)


def test_other_positions_can_be_asked_for():
    everywhere = measure_kl(miniature("llama"), TRACES, add(3.0), "response")
    assert everywhere.n_positions.tolist() == [len(t.response_ids) for t in TRACES]
    chosen = measure_kl(miniature("llama"), TRACES, add(3.0), lambda trace: [len(trace.tokens) - 2])
    expected = [by_hand(t, add(3.0), [len(t.tokens) - 2]) for t in TRACES]
    torch.testing.assert_close(chosen.per_trace, torch.tensor(expected), atol=1e-5, rtol=1e-3)


def test_nothing_changed_is_exactly_zero():
    assert measure_kl(miniature("llama"), TRACES, add(0.0), "response").mean == 0.0
    assert math.isnan(measure_kl(miniature("llama"), TRACES, []).mean)


def test_the_size_of_the_batches_does_not_matter():
    small = Comparison(miniature("llama"), TRACES, "response", batch_rows=2).measure(add(3.0))
    large = Comparison(miniature("llama"), TRACES, "response", batch_rows=64).measure(add(3.0))
    torch.testing.assert_close(small.per_trace, large.per_trace, atol=1e-6, rtol=1e-4)


def test_one_comparison_serves_many_steerings():
    comparison = Comparison(miniature("llama"), TRACES)
    for strength in (1.0, 3.0):
        expected = measure_kl(miniature("llama"), TRACES, add(strength)).mean
        assert comparison.measure(add(strength)).mean == pytest.approx(expected, rel=1e-6)


def test_a_bias_has_a_divergence_too():
    vector = torch.zeros(VOCABULARY)
    vector[5] = 2.0
    got = measure_kl(miniature("llama"), TRACES, [LogitBias(vector, WHEN)])
    tokens = torch.tensor(TRACES[0].tokens)[None]
    logits = miniature("llama").logits(tokens)[0, steered_positions(TRACES[0])].double()
    p, q = (logits + vector).log_softmax(-1), logits.log_softmax(-1)
    assert float(got.per_trace[0]) == pytest.approx(float((p.exp() * (p - q)).sum(-1).mean()), rel=1e-4)


def test_prompts_are_laid_out_to_end_in_one_column():
    laid = lay_out(TRACES)
    for i, trace in enumerate(TRACES):
        columns = laid.real[i].nonzero()[:, 0]
        assert laid.tokens[i, columns].tolist() == list(trace.tokens)
        assert int(columns[0]) == int(laid.shift[i]) == laid.prompt_columns - len(trace.prompt_ids)


def test_no_traces_is_an_error():
    with pytest.raises(DataError, match="no traces"):
        measure_kl(miniature("llama"), [], add(1.0))


# ------------------------------------------------------------------------------------------------------- calibration
@pytest.mark.parametrize("nats", [0.001, 0.1, 0.5])
@pytest.mark.parametrize("sign", [1, -1])
def test_a_strength_with_the_effect_is_found(nats, sign):
    model = miniature("llama")
    found = strength_for_kl(model, TRACES, lambda c: add(sign * c), nats)
    assert found.nats == pytest.approx(nats, rel=0.05)
    assert measure_kl(model, TRACES, add(sign * found.strength)).mean == pytest.approx(found.nats, rel=1e-6)
    assert len(found.tried) < 12
    seen = [kl for _, kl in sorted(found.tried)]
    assert seen == sorted(seen), "KL grows with the strength on the way (card of SNMF, check 6)"


@pytest.mark.parametrize("start", [1e-3, 1.0, 500.0])
def test_the_first_guess_does_not_matter(start):
    comparison = Comparison(miniature("llama"), TRACES)
    assert calibrated(comparison, add, 0.05, start=start).nats == pytest.approx(0.05, rel=0.05)


def test_an_effect_out_of_reach_is_a_clear_failure_with_the_numbers_seen():
    model = miniature("llama")
    with pytest.raises(DataError, match="KL of 1000 nats.*last strengths and their nats"):
        strength_for_kl(model, TRACES, add, 1000.0)
    with pytest.raises(DataError, match="no strength up to"):
        strength_for_kl(model, TRACES, lambda c: add(0.0), 0.1)
    with pytest.raises(DataError, match="no position of these traces is steered"):
        strength_for_kl(model, TRACES, lambda c: add(c, When(after=frozenset({500}))), 0.1)
    with pytest.raises(SettingError, match="above 0"):
        strength_for_kl(model, TRACES, add, -0.1)


def test_a_curve_that_jumps_is_narrowed_by_bisection():
    """A clamp at zero strength is an edit already: below its own effect nothing can be found, above it is."""
    comparison = Comparison(miniature("llama"), TRACES)
    floor = comparison.measure([Steering(DIRECTION, Clamp(0.0), WHEN)]).mean
    found = calibrated(comparison, lambda c: [Steering(DIRECTION, Clamp(c), WHEN)], floor * 3)
    assert found.nats == pytest.approx(floor * 3, rel=0.05)
