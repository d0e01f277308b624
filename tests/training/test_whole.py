"""Bounds in whole numbers: choices stay exact whatever was seen before, what is cut off, and which rows are unlike
others."""

import pytest
import torch

import choices
from overtone.dictionaries.kernels import candidates
from overtone.dictionaries.kernels.bounds import Problem
from overtone.dictionaries.kernels.candidates import Candidates
from overtone.dictionaries.kernels.rounded import GRAIN
from overtone.dictionaries.kernels.rounded_bf16 import BF16
from overtone.dictionaries.kernels.rounded_int8 import INT8
from overtone.dictionaries.kernels.whole import Seen, Whole
from overtone.dictionaries.selectors.base import Boost, Rule

pytestmark = [
    pytest.mark.usefixtures("however_few_scores"),
    pytest.mark.skipif(not INT8.is_fast(), reason="no int8 products in torch here"),
]
ROWS, WIDTH, LATENTS, K = 300, 96, 1024, 12


@pytest.fixture
def served(monkeypatch):
    """How often whole numbers served, and how often not."""
    made, counts = Whole.of, {True: 0, False: 0}

    def counted(*arguments):
        found = made(*arguments)
        counts[found is not None] += 1
        return found

    monkeypatch.setattr(candidates.Whole, "of", counted)
    return counts


def states(seed=0):
    generator = torch.Generator().manual_seed(seed)
    x, g = torch.randn(2, ROWS, WIDTH, generator=generator)
    weight = torch.nn.functional.normalize(torch.randn(LATENTS, WIDTH, generator=generator), dim=1)
    return x, torch.nn.functional.normalize(g, dim=1), weight, 0.05 * torch.randn(LATENTS, generator=generator)


def check(selection, x, weight, bias, g=None, size=0.0, k=K):
    boost = None if g is None else Boost(size * g, weight.roll(1, 0), "pull")
    rule = Rule(k=k, boost=boost)
    found = selection.select(x, weight, bias, rule, False)
    assert found is not None
    choices.check(found, x, weight, bias, rule, False)
    return found


@pytest.mark.parametrize("boosted", [False, True])
def test_what_was_seen_of_other_states_and_gradients_changes_no_choice(boosted, served):
    x, g, weight, bias = states()
    selection = Candidates(INT8, BF16)
    near = weight[torch.arange(ROWS) % LATENTS] + 0.1 * x  # far higher levels, in the rows' steps
    for rows, size in ((x, 10.0), (1e4 * x, 0.1), (near, 300.0), (x, 1e-4), (1e-4 * x, 10.0), (near, 0.0), (x, 10.0)):
        check(selection, rows, weight, bias * rows.abs().mean(), g if boosted else None, size)
    assert served[True] > 10 * served[False]


@pytest.mark.parametrize("boosted", [False, True])
def test_choices_are_the_same_to_the_bit_whatever_the_noise_and_what_was_seen(boosted):
    """So that a resumed training goes on as it would have; of equal scores those of the first latents are chosen."""
    x, g, weight, bias = states()
    weight[400:800], bias[400:800] = weight[:400], bias[:400]
    rule, choices_ = Rule(k=K, boost=Boost(10 * g, weight, "pull") if boosted else None), []
    for kinds in ((INT8, BF16), (INT8, BF16), (BF16,)):
        selection = Candidates(*kinds)
        for rows in (3 * x, x.flip(0), x):
            found = selection.select(rows, weight, bias, rule, False)
        choices_.append(found)
    first, *others = choices_
    by_row = first.support.latents.view(ROWS, K)
    assert bool((by_row.diff(dim=1) > 0).all())
    has, twin = torch.zeros(ROWS, LATENTS, dtype=torch.bool).scatter_(1, by_row, True), slice(400, 800)
    assert bool(has[:, twin].any()) and bool((has[:, :400] | ~has[:, twin]).all())
    for other in others:
        assert torch.equal(other.support.latents, first.support.latents) and torch.equal(other.u, first.u)
        assert all(torch.equal(side, first.sides[name]) for name, side in other.sides.items())


def test_scores_that_a_byte_does_not_hold_are_not_missed(served):
    """In some rows k latents and one more have scores far above all others; of these the one hardly has a boost."""
    x, g, weight, bias = states()
    x[7], x[99], g[[7, 99]] = 10 * weight[0], 10 * weight[500], weight[900].clone()
    ours = torch.arange(K + 1) * 37 + 40
    for row, first in ((7, ours), (99, ours + 500)):
        aside = weight[first] - (weight[first] @ x[row] / 100).unsqueeze(1) * x[row]
        weight[first] = 0.06 * x[row] + 0.8 * torch.nn.functional.normalize(aside, dim=1)
        weight[first[-1]] = 0.1 * x[row]
    boosts = weight.clone()
    for first in (ours, ours + 500):
        boosts[first] = 0.1 * weight[900] + 0.99 * weight[first]
        boosts[first[:-1]] = 0.5 * weight[900] + 0.01 * weight[first[:-1]]
        boosts[first[-1]] -= (boosts[first[-1]] @ weight[900]) * weight[900]
    g, selection = torch.nn.functional.normalize(g, dim=1), Candidates(INT8, BF16)
    for _ in range(3):
        rule = Rule(k=K, boost=Boost(g, boosts, "pull"))
        found = selection.select(x, weight, 0 * bias, rule, False)
        choices.check(found, x, weight, 0 * bias, rule, False)
        assert ours[-1] in found.support.latents.view(ROWS, K)[7]
    assert served[True] and not served[False]


def test_k_th_scores_that_vary_by_row_as_those_of_trained_dictionaries():
    x, g, weight, bias = states()
    x[:, WIDTH // 2 :] *= torch.logspace(-1, 1, ROWS).unsqueeze(1)  # most of some rows lies where weights are small
    weight[:, WIDTH // 2 :] *= 0.05
    selection = Candidates(INT8, BF16)
    for seed in range(4):
        order = torch.randperm(ROWS, generator=torch.Generator().manual_seed(seed))
        check(selection, x[order], weight, bias, g, 10.0)
        check(selection, x[order], weight, bias)


@pytest.mark.parametrize("kind", ["zero gradients", "one gradient's outlier", "no gradients at all", "zero states"])
def test_rows_like_no_others(kind):
    x, g, weight, bias = states()
    selection = Candidates(INT8, BF16)
    check(selection, x, weight, bias, g, 10.0)
    if kind == "zero gradients":
        g[::4] = 0
    elif kind == "one gradient's outlier":
        g[7] = 0
        g[7, 3] = 1
    elif kind == "no gradients at all":
        g[:] = 0
    else:
        x[::4] = 0
    for _ in range(2):
        check(selection, x, weight, bias, g, 10.0)


def test_scores_below_0_are_bounded_otherwise(served):
    x, g, weight, bias = states()
    selection = Candidates(INT8, BF16)
    check(selection, x, weight, bias, g, 10.0)
    for _ in range(2):
        check(selection, x, weight, bias - 10, g, 10.0)
    assert served[False]
    check(selection, x, weight, bias, g, 10.0)


@pytest.mark.parametrize("bad", [torch.nan, torch.inf])
def test_what_is_not_finite_is_left_to_the_dictionary_and_spoils_nothing(bad):
    x, g, weight, bias = states()
    selection = Candidates(INT8, BF16)
    for part in (x, g):
        kept = part[5, 4].clone()
        part[5, 4] = bad
        assert selection.select(x, weight, bias, Rule(k=K, boost=Boost(g, weight, "pull")), False) is None
        part[5, 4] = kept
        check(selection, x, weight, bias, g, 10.0)


def test_keys_are_bounds_that_at_least_k_reach():
    x, g, weight, bias = states()
    rule = Rule(k=K, boost=Boost(10 * g, weight.roll(1, 0), "pull"))
    problem = Problem(x, weight, bias, None, rule, False)
    weights = problem.rounded(INT8)
    found = Whole.of(problem, INT8, *weights, Seen())
    u = x.double() @ weight.double().T + bias.double()
    scores = u * (1 + (10 * g.double() @ weight.roll(1, 0).double().T).abs())
    keys, z = torch.from_numpy(found.keys.astype("int64")), torch.from_numpy(found.z.astype("int64"))
    whole = keys // z < 255
    bounds = keys.double() * found.unit * found.limits.units.double().unsqueeze(1)
    assert bool((scores <= bounds * (1 + 1e-5))[whole].all())
    assert bool((keys >= found.most)[~whole].all())
    assert bool(((keys >= torch.from_numpy(found.levels.astype("int64")).unsqueeze(1)).sum(1) >= K).all())
    others = weights[1].short(problem.rule.boost.states, alike=True)
    least = weights[1].magnitudes(others).double() * float(others.steps[0])
    told = found.z_at(torch.arange(ROWS * LATENTS)).double().view(ROWS, LATENTS) * (1 + float(found.limits.f[0]))
    assert bool((told >= least * (1 - GRAIN) - 1e-6).all())
    over = (bounds / scores - 1)[whole & (scores > scores.topk(K).values[:, -1:])]
    assert 0 < float(over.mean()) < 0.25


def test_no_key_is_less_than_its_bound():
    x, _, weight, bias = states()
    problem = Problem(x, weight, bias, None, Rule(k=K), False)
    (rounded, _) = weights = problem.rounded(INT8)
    found = Whole.of(problem, INT8, *weights, Seen())
    least = rounded.at_most(rounded.short(x), False)[0].double() * (1 - GRAIN)
    keys = torch.from_numpy(found.keys.astype("int64"))
    assert bool((keys * found.unit >= least)[keys < 255].all())
    assert float((keys == 255).double().mean()) < 0.01


def test_few_are_scored_beyond_those_that_are_chosen():
    generator = torch.Generator().manual_seed(1)
    x, weight = torch.randn(1000, 512, generator=generator), torch.randn(4096, 512, generator=generator)
    weight = torch.nn.functional.normalize(weight, dim=1)
    g = 22.6 * torch.nn.functional.normalize(torch.randn(1000, 512, generator=generator), dim=1)
    selection, rule = Candidates(INT8, BF16), Rule(k=32, boost=Boost(g, weight, "pull"))
    for _ in range(2):
        before = selection.scored
        choices.check(
            selection.select(x, weight, torch.zeros(4096), rule, False), x, weight, torch.zeros(4096), rule, False
        )
    assert 32 * len(x) <= selection.scored - before < 3.2 * 32 * len(x)
