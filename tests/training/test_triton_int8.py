"""Int8 nominees on a GPU: what they miss is bounded, and the choice is that of float32. In Triton's interpreter on a
CPU, or compiled on a GPU with TRITON_INTERPRET=0."""

import os

import pytest
import torch

from choices import EXACT, check, on_cpu, states_and_matrix
from overtone.dictionaries.selectors.base import Rule

pytest.importorskip("triton", reason="Triton (a gigabyte) is not installed; `pip install overtone[kernels]`")

from interpreter import quicken
from overtone.dictionaries.kernels import triton_int8, triton_select
from overtone.dictionaries.kernels.kept import kept
from overtone.dictionaries.kernels.triton_update import TritonUpdate
from overtone.dictionaries.kernels.update import Moments

quicken()

ON_CPU = os.environ["TRITON_INTERPRET"] == "1"
DEVICE = torch.device("cpu" if ON_CPU else "cuda")
GRAIN = triton_int8.GRAIN * (2 if ON_CPU else 1)  # the interpreter cuts numbers off


@pytest.fixture(autouse=True)
def small(monkeypatch, rounding_as_before):
    """Several blocks of everything even where there is little of it."""
    monkeypatch.setattr(triton_select, "LARGE", 0)
    monkeypatch.setattr(triton_select._Int8, "block", 1500)
    for name, size in {"NARROW": 32, "LEAST": 16, "PLACES": 4, "WIDTH": 16}.items():
        monkeypatch.setattr(triton_select, name, size)
    if ON_CPU:  # compiled, blocks of a product are as large as they have to be
        monkeypatch.setattr(triton_int8, "is_fast", lambda device: True)
        monkeypatch.setattr(triton_select, "SIDE", 64)
        for name, size in {"ROWS": 16, "LATENTS": 32, "SIDE": 32, "GROUP": 2}.items():
            monkeypatch.setattr(triton_int8, name, size)


def select(x, weight, bias, rule, two_sided=False):
    """What the kernels choose, on the CPU again; and whether int8 was enough."""
    weight = torch.nn.Parameter(weight.to(DEVICE))
    found = triton_select.select(x.to(DEVICE), weight, bias.to(DEVICE), rule, two_sided)
    return on_cpu(found, len(x), len(weight)), triton_select._RESTS[weight].now == 0


def both(x, weight):
    frame = triton_int8.Frame.of(x, weight)
    return triton_int8.bytes_of(x, frame, 0), triton_int8.bytes_of(weight, frame, 1)


def products(states, weights):
    """(rows, latents) what the integers tell of products, and the roots of V."""
    found = states.numbers.double() @ weights.numbers.double().T - states.shared[:, None] - weights.shared
    a, b = (torch.outer(*pair) for pair in ((states.steps, weights.lengths), (states.lengths, weights.steps)))
    return found * torch.outer(states.steps, weights.steps), ((a.square() + b.square()) / 12).sqrt()


@pytest.mark.parametrize("two_sided", [False, True])
@pytest.mark.parametrize(("rows", "width", "latents", "k", "scale"), [(9, 208, 320, 4, 1.0), (3, 96, 208, 1, 1e-3)])
def test_the_k_best_of_each_row_are_those_of_float32(precision, two_sided, rows, width, latents, k, scale):
    x, weight, bias = states_and_matrix(rows, width, latents, scale)
    found, enough = select(x, weight, bias, Rule(k=k), two_sided)
    assert enough
    check(found, x, weight, bias, Rule(k=k), two_sided, EXACT[precision])
    assert bool((found.support.latents.view(rows, k).diff(dim=1) > 0).all()), "in order of latents"


def test_products_are_those_of_the_integers_less_what_they_share():
    x, weight, _ = (part.to(DEVICE) for part in states_and_matrix(37, 96, 80))
    states, weights = both(x, weight)
    exact, _ = products(states, weights)
    found = triton_int8.scores(states, weights, torch.zeros(80, device=DEVICE), False, slice(5, 36)).u.double()
    assert bool(((found - exact[5:36]).abs() <= GRAIN * exact[5:36].abs() + 1e-6).all())


@pytest.mark.parametrize("two_sided", [False, True])
def test_bounds_of_groups_hold_of_their_scores(two_sided):
    x, weight, bias = (part.to(DEVICE) for part in states_and_matrix(37, 96, 208))
    found = triton_int8.scores(*both(x, weight), bias, two_sided)
    truth = x.double() @ weight.double().T + bias.double()
    truth = (truth.abs() if two_sided else truth).cpu()
    latents = torch.arange(208)
    group = latents // triton_int8.LATENTS * triton_int8.APART + latents % triton_int8.APART
    best = torch.full((37, found.upper.shape[1]), -torch.inf, dtype=torch.float64)
    best.scatter_reduce_(1, group.expand(37, -1), truth, "amax")
    there = torch.isin(torch.arange(best.shape[1]), group)
    upper, lower = found.upper.double().cpu(), found.lower.double().cpu()
    assert bool((upper >= best)[:, there].all()) and bool((lower <= best)[:, there].all())
    assert bool((upper == -torch.inf)[:, ~there].all())
    assert bool(((upper - lower)[:, there] < truth.std()).all()), "and are near"


@pytest.mark.parametrize("kind", ["usual", "all alike", "one coordinate is large"])
def test_what_products_miss_has_the_deviation_that_is_told_whatever_the_data(kind):
    """All alike, rounding to the nearest would miss the same in all coordinates: then errors would add up to far more.
    Medians of their mean squares over widths, each of which has noise of its own."""
    squares = []
    for width in (208, 224, 240, 256, 272):
        x, weight, _ = (part.to(DEVICE) for part in states_and_matrix(24, width, 48))
        if kind == "all alike":
            x, weight = (0.37 + 0.001 * part.sign() * (torch.arange(width, device=DEVICE) < 1) for part in (x, weight))
            x[:, 0] = weight[:, 0] = 1.0
        elif kind == "one coordinate is large":
            x[:, 3] *= 300
        states, weights = both(x, weight)
        found, deviation = products(states, weights)
        missed = (found - x.double() @ weight.double().T).abs() / deviation
        assert float(missed.max()) < triton_int8.SURE
        squares.append(float(missed.square().mean()))
    assert 0.05 < sorted(squares)[2] < 1.5


def test_where_too_much_is_in_doubt_16_bit_numbers_nominate_and_int8_rests():
    x, weight, bias = states_and_matrix(3, 48, 208)
    weight[0] *= 20 / weight[0].norm()
    weight[1:160] = weight[:1] * (1 + 1e-3 * torch.randn(159, 1, generator=torch.Generator().manual_seed(0)))
    bias[:160] = 0
    x[1] = weight[0]
    x[2] = 0
    found, enough = select(x, weight, bias, Rule(k=4))
    assert not enough
    check(found, x, weight, bias, Rule(k=4), False, EXACT["high"])  # too many for those, too


def test_what_is_not_a_number_is_passed_on(precision):
    x, weight, bias = states_and_matrix(3, 48, 96)
    x[1, 4] = torch.nan
    found, enough = select(x, weight, bias, Rule(k=5))
    assert not enough and found.u.view(3, 5).isnan().any(1).tolist() == [False, True, False]


def test_bytes_of_a_parameter_are_kept_until_it_changes_and_renewed_by_its_update():
    weight = torch.nn.Parameter(torch.randn(16, 48, device=DEVICE))
    x = torch.randn(9, 48, device=DEVICE) * torch.linspace(0.01, 2, 48, device=DEVICE)
    known = triton_int8.weights_of(weight, x)
    assert triton_int8.weights_of(weight, x) is known
    for unit in (True, False):
        zeros = [torch.zeros_like(weight) for _ in range(2)]
        one = Moments(weight, torch.randn_like(weight), *zeros, torch.zeros((), device=DEVICE), unit)
        update = TritonUpdate()
        update.norm([one])
        update.adam([one], 0.1, (0.9, 0.999), None)
        fresh = triton_int8.bytes_of(weight.detach(), known.frame, 1)
        assert triton_int8.weights_of(weight, x) is known and known.frame.by.unique().numel() > 1
        torch.testing.assert_close(known.bytes.steps, fresh.steps)
        torch.testing.assert_close(known.bytes.lengths, fresh.lengths, rtol=0.02, atol=0)
        torch.testing.assert_close(known.bytes.shared, fresh.shared, rtol=0, atol=1.0)
        assert int((known.bytes.numbers.int() - fresh.numbers.int()).abs().max()) <= 1  # of the last digit
    with torch.no_grad():
        weight.mul_(2)
    assert kept(triton_int8.Weights, weight) is None
