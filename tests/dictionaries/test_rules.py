"""Rules, by which kernels nominate, say what the selection itself would have nominated."""

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st

from overtone.core.seeds import torch_generator
from overtone.dictionaries.choice import everywhere
from overtone.dictionaries.codes import Support
from overtone.dictionaries.decoders.linear import Linear
from overtone.dictionaries.scores import Contribution, GradientWeighted, Magnitude, NormedPreActivation, PreActivation
from overtone.dictionaries.selectors.base import Rule
from overtone.dictionaries.selectors.energy import Energy


def places(support):
    return set(zip(support.rows.tolist(), support.latents.tolist(), strict=True))


@settings(max_examples=60, deadline=None)
@given(
    rows=st.integers(1, 6), latents=st.integers(1, 12), k=st.integers(1, 12), most=st.integers(1, 12) | st.none(),
    size=st.floats(0.1, 4), seed=st.integers(0, 99),
)  # fmt: skip
@example(rows=4, latents=4, k=3, most=None, size=0.5, seed=1)  # a row without a positive score: any of its latents
def test_what_an_energy_keeps_of_the_best_is_what_it_nominates_or_it_asks_for_more(rows, latents, k, most, size, seed):
    generator = torch_generator(seed, "energy")
    scores = torch.randn(rows, latents, generator=generator).relu().square()
    states = size * torch.randn(rows, 3, generator=generator)
    selection, k = Energy(most), min(k, latents)
    nominees = Support.from_indices(scores.topk(k, dim=1).indices.sort(dim=1).values, latents)
    keep = selection.narrow(nominees, nominees.take(scores), states)

    def active(support):
        return places(support.kept(support.take(scores) > 0))

    expected = active(selection.nominate(scores, company=True, states=states))
    if keep is None:
        assert k < min(most or latents, latents)
    elif k <= min(most or latents, latents):
        assert active(nominees.kept(keep)) == expected
    full = Support.from_indices(scores.topk(min(most or latents, latents), dim=1).indices, latents)
    keep = selection.narrow(full, full.take(scores), states)
    assert keep is not None and active(full.kept(keep)) == expected


def test_an_energy_asks_for_twice_as_many_after_too_few_and_forgets_that():
    generator = torch_generator(0, "energy")
    scores, states = torch.rand(20, 400, generator=generator), torch.full((20, 4), 0.5)
    selection = Energy()
    first = selection.rule(lambda: scores, states).k
    selection.widen()
    assert selection.rule(lambda: scores, states).k == 2 * first
    assert selection.rule(lambda: scores, states).k == first
    assert selection.rule(lambda: scores, 1000 * states) is None  # most of the latents: no rule


@pytest.mark.parametrize("floor", [0.0, 0.7])
def test_a_threshold_on_lengthened_pre_activations_is_one_on_pre_activations(floor):
    generator = torch_generator(0, "norms")
    u, norms = torch.randn(50, 30, generator=generator), torch.rand(30, generator=generator) + 0.1
    norms[4] = 0
    shift = 0.1 * torch.randn(30, generator=generator) if floor == 0 else None
    rule = NormedPreActivation().on_preactivations(Rule(floor=floor, shift=shift), rows_of(norms), {})
    expected = u * norms - (0 if shift is None else shift) > floor
    assert torch.equal(u - rule.shift > rule.floor, expected)
    assert rule.hinted


def test_ranks_are_passed_on_where_rows_are_equally_long_only():
    even, uneven = torch.full((9,), 0.3), torch.linspace(0.1, 1, 9)
    for score in (NormedPreActivation(), Contribution()):
        assert score.on_preactivations(Rule(k=3), rows_of(even), {}).k == 3
        assert score.on_preactivations(Rule(k=3), rows_of(uneven), {}) is None
    assert Contribution().on_preactivations(Rule(floor=0.5), rows_of(even), {}) is None
    for score in (PreActivation(), Magnitude(), GradientWeighted(1.0)):
        rule = Rule(floor=0.5)
        assert score.on_preactivations(rule, rows_of(uneven), {}) is rule


def rows_of(norms):
    """A decoder whose rows have some lengths."""
    decoder = Linear(1, len(norms))
    decoder.weight.data.copy_(norms[:, None])
    return decoder


def test_a_rule_with_gradients_multiplies_pre_activations_by_what_the_score_does():
    generator = torch_generator(0, "gradients")
    decoder, u = Linear(3, 7), torch.randn(5, 7, generator=generator)
    decoder.weight.data.normal_(generator=generator)
    beside, score = {"g": torch.randn(5, 3, generator=generator)}, GradientWeighted(2.0)
    rule = score.on_preactivations(Rule(k=3), decoder, beside)
    scores = score({"u": u, **score.sides(decoder, beside)}, everywhere)
    torch.testing.assert_close(u * (1 + (rule.boost.states @ rule.boost.weight.T).abs()), scores)
    assert score.on_preactivations(Rule(shift=torch.zeros(7)), decoder, beside) is None
