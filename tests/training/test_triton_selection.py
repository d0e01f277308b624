"""Selection on a GPU chooses what float32 does, or TF32 where torch may use that: in Triton's interpreter on a CPU, or
compiled on a GPU with TRITON_INTERPRET=0."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from choices import EXACT, check, on_cpu, states_and_matrix
from overtone.dictionaries.kernels.choose import choose_alone
from overtone.dictionaries.presets.abs_top_k import AbsTopK
from overtone.dictionaries.presets.batch_top_k import BatchTopK
from overtone.dictionaries.presets.top_k import TopK
from overtone.dictionaries.selectors.base import Boost, Rule

pytest.importorskip("triton", reason="Triton (a gigabyte) is not installed; `pip install overtone[kernels]`")

from interpreter import quicken
from overtone.dictionaries.kernels import halves, triton_select
from overtone.dictionaries.kernels.kept import KEPT
from overtone.dictionaries.kernels.triton_update import TritonUpdate
from overtone.dictionaries.kernels.update import Moments

quicken()

DEVICE = torch.device("cpu" if os.environ["TRITON_INTERPRET"] == "1" else "cuda")


@pytest.fixture(autouse=True)
def small(monkeypatch, rounding_as_before):
    """Several blocks of rows, of latents and of places even where there are few of them."""
    monkeypatch.setattr(triton_select._Operands, "block", 350)
    sizes = {"SIDE": 32, "NARROW": 16, "LEAST": 16, "AGAIN": 4, "FLOORED": 64, "PLACES": 4, "WIDTH": 16}
    for name, size in sizes.items():
        monkeypatch.setattr(triton_select, name, size)


def select(x, weight, bias, rule, two_sided=False):
    """What the kernels choose, on the CPU again."""
    there = {} if rule.shift is None else {"shift": rule.shift.to(DEVICE)}
    if rule.boost is not None:
        there["boost"] = Boost(rule.boost.states.to(DEVICE), rule.boost.weight.to(DEVICE), rule.boost.head)
    found = triton_select.select(
        x.to(DEVICE), weight.to(DEVICE), bias.to(DEVICE),
        Rule(rule.k, rule.floor, hinted=rule.hinted, **there), two_sided,
    )  # fmt: skip
    return None if found is None else on_cpu(found, len(x), len(weight))


def boost(rows, width, latents):
    states, weight, _ = states_and_matrix(rows + 1, width, latents)
    return Boost(states[:rows], weight, "pull")


@pytest.mark.parametrize("boosted", [False, True])
@pytest.mark.parametrize("two_sided", [False, True])
@pytest.mark.parametrize(
    ("rows", "width", "latents", "k", "scale"), [(9, 24, 150, 5, 1.0), (2, 40, 32, 8, 1e4), (3, 7, 70, 1, 1e-3)]
)
def test_the_k_best_of_each_row(precision, two_sided, boosted, rows, width, latents, k, scale):
    x, weight, bias = states_and_matrix(rows, width, latents, scale)
    rule = Rule(k=k, boost=boost(rows, width, latents) if boosted else None)
    found = select(x, weight, bias, rule, two_sided)
    check(found, x, weight, bias, rule, two_sided, EXACT[precision])
    assert bool((found.support.latents.view(rows, k).diff(dim=1) > 0).all()), "in order of latents"


@pytest.mark.parametrize("two_sided", [False, True])
def test_all_that_exceed_a_threshold(precision, two_sided):
    x, weight, bias = states_and_matrix(9, 24, 150)
    rule = Rule(floor=9.0, shift=torch.linspace(-1, 1, 150))
    check(select(x, weight, bias, rule, two_sided), x, weight, bias, rule, two_sided, EXACT[precision])


def test_what_leaves_more_than_lists_hold_is_declined():
    x, weight, bias = states_and_matrix(9, 24, 150)
    assert select(x, weight, bias + 1000, Rule(floor=9.0)) is None
    assert select(x, weight, bias, Rule(k=triton_select.SIDE)) is None


def test_of_equal_scores_the_first_latents_win_however_many_there_are(precision):
    """Lists are too short for them, so that the row is searched; in the first row they are the best ones."""
    x, weight, _ = states_and_matrix(4, 24, 150)
    weight[5:145:2] = weight[5]
    x[0] = weight[5]
    found = select(x, weight, torch.zeros(150), Rule(k=6)).support.latents.view(4, 6)
    assert found[0].tolist() == [5, 7, 9, 11, 13, 15]
    x[1] = 0
    found = select(x, weight, torch.zeros(150), Rule(k=6)).support.latents.view(4, 6)
    assert found[1].tolist() == [0, 1, 2, 3, 4, 5]


def test_where_torch_may_not_round_close_scores_are_told_apart():
    """Two latents whose scores differ by less than 16-bit numbers show, hundreds of times."""
    torch.set_float32_matmul_precision("highest")
    x, weight, bias = states_and_matrix(12, 32, 100)
    weight[1::2] = weight[::2] * (1 + 2e-5)
    best = (x.double() @ weight.double().T + bias.double().repeat_interleave(2)[:100]).topk(4).indices.sort().values
    found = select(x, weight, bias.repeat_interleave(2)[:100], Rule(k=4)).support.latents.view(12, 4)
    assert torch.equal(found, best)


def test_the_best_are_found_though_rounding_puts_them_last():
    """What rounding to 11 bits takes from the best and gives to others adds up over all coordinates."""
    torch.set_float32_matmul_precision("highest")
    weight, more = torch.full((150, 25), 0.5), torch.arange(0, 24, 4)
    best = torch.arange(2, 32, 5)  # in the block that the level is taken from: its list is not too short
    half, little = 2.0**-11, 2.0**-16
    for latent, up in zip(best.tolist(), more.tolist(), strict=True):  # the last coordinate is exact
        weight[latent, :24] = 1 + half - little
        weight[latent, :up] = 1 + half + little
        weight[latent, 24] = -up * half
    x, bias = torch.ones(2, 25), torch.zeros(150)
    assert torch.equal((x[0].double() @ weight.double().T).topk(3).indices, best[:3])
    assert torch.equal((x[0] @ weight.half().float().T).topk(3).indices, best[-3:].flip(0))
    found = select(x, weight, bias, Rule(k=3)).support.latents.view(2, 3)
    assert torch.equal(found, best[:3].expand(2, 3))


def test_what_is_not_a_number_is_passed_on(precision):
    x, weight, bias = states_and_matrix(3, 24, 150)
    x[1, 4] = torch.nan
    u = select(x, weight, bias, Rule(k=5)).u.view(3, 5)
    assert u.isnan().all(1).tolist() == [False, True, False] and u.isnan().any(1).tolist() == [False, True, False]


@pytest.mark.parametrize("size", [1e-20, 1.0, 3e37])
def test_halves_keep_eleven_bits_of_rows_of_any_size(size):
    rows = torch.linspace(-1, 1, 5 * 37, device=DEVICE).view(5, 37).sin() * size
    rows[2] = 0
    found = halves.halves_of(rows)
    back = found.numbers.double() * found.scales.double().unsqueeze(1)
    largest = rows.double().abs().amax(1, keepdim=True)
    assert bool(((back - rows.double()).abs() <= 2.0**-11 * rows.double().abs() + 2.0**-39 * largest).all())
    torch.testing.assert_close(found.lengths.double(), rows.double().norm(dim=1), rtol=1e-5, atol=0)


def test_halves_of_a_parameter_are_kept_until_it_changes_and_renewed_by_its_update():
    weight = torch.nn.Parameter(torch.randn(7, 30, device=DEVICE))
    known = halves.halves_of(weight)
    assert halves.halves_of(weight) is halves.halves_of(weight.detach()) is known
    for unit in (True, False):
        zeros = [torch.zeros_like(weight) for _ in range(2)]
        one = Moments(weight, torch.randn_like(weight), *zeros, torch.zeros((), device=DEVICE), unit)
        update = TritonUpdate()
        update.norm([one])
        update.adam([one], 0.1, (0.9, 0.999), None)
        fresh = halves.halves_of(weight.detach().clone())
        assert halves.halves_of(weight) is known
        assert torch.equal(fresh.numbers, known.numbers) and torch.equal(fresh.scales, known.scales)
        torch.testing.assert_close(fresh.lengths, known.lengths)
    with torch.no_grad():
        weight.mul_(2)
    assert halves.halves_of(weight) is not known
    address = weight.data_ptr()
    del weight, one
    assert (halves.Halves, address) not in KEPT


def test_the_kernels_can_be_built_for_a_gpu():
    """Types that the interpreter does not look at are right. It needs no GPU."""
    script = Path(__file__).parent.parent / "build_for_a_gpu.py"
    done = subprocess.run(
        [sys.executable, script], capture_output=True, text=True, env={**os.environ, "TRITON_INTERPRET": "0"}
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert {"rank_kernel", "_adam_kernel", "_product_kernel", "settle_kernel"} <= set(done.stdout.split())


@pytest.mark.parametrize("make", [TopK, AbsTopK, BatchTopK])
def test_codes_of_states_alone_are_those_of_the_dictionary_itself(precision, make):
    model = make(300, k=6).build(24, torch.Generator().manual_seed(0)).eval().to(DEVICE)
    states = states_and_matrix(9, 24, 300)[0].to(DEVICE)
    if make is BatchTopK:
        model.selection.theta.fill_(1.5)
    found = choose_alone(model, states, {}, triton_select.select)
    expected = model.choose(states, company=False)
    chosen, others = (
        set(zip(c.support.rows.tolist(), c.support.latents.tolist(), strict=True)) for c in (found, expected)
    )
    assert len(chosen) >= 9 and len(chosen ^ others) <= (0 if precision == "highest" else 4)
    if chosen == others:
        torch.testing.assert_close(found.u, at_the_same(expected, found), rtol=0, atol=10 * EXACT[precision])


def at_the_same(expected, found):
    """The pre-activations of one choice in the order of another one of the same places."""
    places = [c.support.rows * c.support.n_latents + c.support.latents for c in (expected, found)]
    return expected.u[places[0].argsort()][places[1].argsort().argsort()]
