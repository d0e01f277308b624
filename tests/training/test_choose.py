"""The fused selections choose what the dictionary itself chooses, whatever the processor can do."""

import ctypes
import os
from functools import cache, partial

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import choices
import matrix_registers
from choices import states_and_matrix
from overtone.core.seeds import torch_generator
from overtone.dictionaries.autoencoder import linear_autoencoder
from overtone.dictionaries.kernels import candidates, memory
from overtone.dictionaries.kernels import native as native_module
from overtone.dictionaries.kernels.bounds import GROUP
from overtone.dictionaries.kernels.candidates import Candidates
from overtone.dictionaries.kernels.choose import choose
from overtone.dictionaries.kernels.compiler import BuildError
from overtone.dictionaries.kernels.dispatch import KINDS
from overtone.dictionaries.kernels.native import FEW, MACHINE, Native, digits
from overtone.dictionaries.kernels.native_dense import NativeProduct
from overtone.dictionaries.kernels.nominees import NOMINEES
from overtone.dictionaries.kernels.rounded import Counting
from overtone.dictionaries.kernels.rounded_bf16 import BF16
from overtone.dictionaries.kernels.rounded_int8 import INT8
from overtone.dictionaries.lengths import of_length
from overtone.dictionaries.presets.abs_top_k import AbsTopK
from overtone.dictionaries.presets.batch_top_k import BatchTopK
from overtone.dictionaries.presets.crosscoder import Crosscoder
from overtone.dictionaries.presets.feature_choice import FeatureChoice
from overtone.dictionaries.presets.g_sae import GSAE
from overtone.dictionaries.presets.jump_relu import JumpReLU
from overtone.dictionaries.presets.relu_l1 import ReluL1
from overtone.dictionaries.presets.top_afa import TopAFA
from overtone.dictionaries.presets.top_k import TopK
from overtone.dictionaries.scores import GradientWeighted
from overtone.dictionaries.selectors.base import Boost, Rule
from overtone.dictionaries.selectors.rank import Rank

pytestmark = pytest.mark.usefixtures("however_few_scores")
BUILDS = {
    "int8": (MACHINE,), "int8, other registers": None, "bf16": (MACHINE,), "bf16, other registers": None,
    "single": (MACHINE,), "avx2": ("-mavx2", "-mfma"), "portable": (),
}  # fmt: skip
TORCH = {"torch int8": (INT8,), "torch bf16": (BF16,), "torch": KINDS}
SELECTS = [*BUILDS, *TORCH]
SIZES = st.one_of(st.integers(1, 150), st.integers(1, 9).map(lambda n: n * GROUP))


@cache
def library(build):
    """The kernels for some compiler options; skips where this machine has no compiler or cannot run them."""
    if build == "avx2" and torch.backends.cpu.get_cpu_capability() not in ("AVX2", "AVX512"):
        pytest.skip("this processor has no AVX2")
    digits, _, other = build.partition(", ")
    try:
        options = BUILDS[build] or matrix_registers.otherwise()
        found = Native(*options, nominees=digits if digits in NOMINEES else None)
    except BuildError as error:
        pytest.skip(f"no compiled kernels here: {error}")
    if other and bool(found.amx) == matrix_registers.here():
        pytest.skip("this processor's registers are too narrow")
    return found


@cache
def in_torch(build):
    """Torch's selection; skips where this torch or machine has no int8 products."""
    if build != "torch bf16" and not INT8.is_fast():
        pytest.skip("no int8 products in torch here")
    return Candidates(*TORCH[build])


def select(build, x, weight, bias, rule, two_sided):
    """What the kernels for some compiler options, or torch's, select."""
    return (in_torch if build in TORCH else library)(build).select(x, weight, bias, rule, two_sided)


def uneven_states(rows, width, latents):
    """States, weights of unit length and no bias; most of some states lies where all weights are 0."""
    x, weight, bias = states_and_matrix(rows, width, latents)
    weight[:, width // 2 :] = 0
    x[:, : width // 2] *= torch.logspace(0, 0.4, rows)[
        torch.randperm(rows, generator=torch.Generator().manual_seed(0))
    ].unsqueeze(1)
    return x, torch.nn.functional.normalize(weight, dim=1), 0 * bias


def places_and_values(found):
    return found.support, found.u


def check(found, x, weight, bias, rule, two_sided):
    """As `choices.check`; torch's kernel may decline where latents make no groups."""
    if found is None:
        assert len(weight) % GROUP or len(weight) // GROUP < rule.k
    else:
        choices.check(found, x, weight, bias, rule, two_sided)


@pytest.mark.parametrize("build", SELECTS)
@pytest.mark.parametrize("two_sided", [False, True])
@settings(max_examples=25, deadline=None)
@given(
    rows=st.integers(1, 40), width=st.integers(1, 70), latents=SIZES, share=st.floats(0, 1),
    scale=st.sampled_from([1e-3, 1.0, 1e4]),
)  # fmt: skip
def test_the_k_best_of_each_row(build, two_sided, rows, width, latents, share, scale):
    x, weight, bias = states_and_matrix(rows, width, latents, scale)
    rule = Rule(k=max(1, round(share**3 * latents)))
    check(select(build, x, weight, bias, rule, two_sided), x, weight, bias, rule, two_sided)


@pytest.mark.parametrize("build", SELECTS)
@pytest.mark.parametrize("two_sided", [False, True])
@settings(max_examples=25, deadline=None)
@given(rows=st.integers(1, 40), width=st.integers(1, 70), latents=SIZES, floor=st.floats(-1, 6))
def test_all_that_exceed_a_threshold(build, two_sided, rows, width, latents, floor):
    x, weight, bias = states_and_matrix(rows, width, latents)
    rule = Rule(floor=floor, shift=torch.linspace(-1, 1, latents))
    check(select(build, x, weight, bias, rule, two_sided), x, weight, bias, rule, two_sided)


@pytest.mark.parametrize("build", SELECTS)
@pytest.mark.parametrize("two_sided", [False, True])
@settings(max_examples=25, deadline=None)
@given(
    rows=st.integers(1, 300), width=st.integers(1, 70), latents=SIZES, share=st.floats(0, 1), floor=st.floats(-1, 6),
    size=st.sampled_from([0.0, 0.01, 0.3, 3.0, 100.0]), lift=st.sampled_from([-50.0, 0.0]),
)  # fmt: skip
def test_scores_that_a_second_product_multiplies(build, two_sided, rows, width, latents, share, floor, size, lift):
    x, weight, bias = states_and_matrix(rows, width, latents)
    generator = torch.Generator().manual_seed(latents)
    a, b = torch.randn(rows, width, generator=generator), torch.randn(latents, width, generator=generator)
    a[::3] = 0
    boost, bias = Boost(size / width**0.5 * a, b, "more"), bias + lift  # lowered: nearly all scores are negative
    shift = torch.linspace(-1, 1, latents)
    for rule in (Rule(k=max(1, round(share**3 * latents)), boost=boost), Rule(0, floor, shift, boost=boost)):
        check(select(build, x, weight, bias, rule, two_sided), x, weight, bias, rule, two_sided)


@pytest.mark.parametrize("build", BUILDS)
@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("strange", [0.0, 1e-25, 1e25, float("nan")])
def test_rows_of_boosts_count_as_brought_to_their_length(build, threads, strange):
    """Whatever they were: none, usual ones of many sizes, or such as cannot be measured by squares."""
    x, weight, bias = states_and_matrix(300, 40, 3 * GROUP)
    generator = torch.Generator().manual_seed(1)
    a, b = torch.randn(300, 40, generator=generator), torch.randn(3 * GROUP, 40, generator=generator)
    a *= torch.logspace(-9, 9, 300)[torch.randperm(300, generator=generator)].unsqueeze(1)
    a[::7] = 0
    a[150] *= strange
    rule = Rule(k=4, boost=Boost(a, b, "more", torch.tensor(0.7)))
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        found = select(build, x, weight, bias, rule, False)
        made = select(build, x, weight, bias, Rule(k=4, boost=Boost(of_length(a, torch.tensor(0.7)), b, "more")), False)
    finally:
        torch.set_num_threads(before)
    if strange == strange:
        check(found, x, weight, bias, Rule(k=4, boost=Boost(of_length(a, torch.tensor(0.7)), b, "more")), False)
    same = (found.support.latents == made.support.latents).view(300, 4).all(1)
    assert same.sum() >= 299, "they differ in the last digits"
    near = same.repeat_interleave(4)
    boosts, expected = found.sides["more"][near], made.sides["more"][near]
    torch.testing.assert_close(boosts, expected, rtol=1e-5, atol=1e-6, equal_nan=True)


@pytest.mark.parametrize("build", SELECTS)
@pytest.mark.parametrize("boosted", [False, True])
def test_rows_that_are_put_off_keep_their_places_among_those_of_the_next_block(build, boosted):
    """Several blocks, limits known from the batch before, and one row in twenty whose scores lie far below them."""
    n, width = 4500, 24
    x, weight, bias = states_and_matrix(n, width, 160)
    weight[:, :4] *= 0.05
    x[::20, 4:], bias[:] = 0, 0
    a = torch.randn(n, width, generator=torch.Generator().manual_seed(5)) if boosted else None
    others = weight.roll(1, 0)
    rule = Rule(k=5, boost=None if a is None else Boost(a, others, "more"))
    plain = x.double() @ weight.double().T + bias.double()
    scores = plain if a is None else plain * (1 + (a.double() @ others.double().T).abs())
    for _ in range(2):
        found = select(build, x, weight, bias, rule, False)
        gained = scores.gather(1, found.support.latents.view(n, 5))
        best = scores.topk(5, dim=1).values.sort(dim=1).values
        torch.testing.assert_close(gained.sort(dim=1).values, best, rtol=1e-5, atol=1e-5)
        true_u = plain.gather(1, found.support.latents.view(n, 5))
        torch.testing.assert_close(found.u.double().view(n, 5), true_u, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("build", BUILDS)
def test_multiplied_scores_are_chosen_exactly_where_float32_is_exact_and_a_boost_of_0_changes_no_bit(build):
    x, weight, bias = awkward("ordinary", 300, 40, 500)
    a, b = (torch.randint(-2, 3, (n, 40), generator=torch.Generator().manual_seed(n)).float() for n in (300, 500))
    truth = x.double() @ weight.double().T + bias.double()
    scores = truth * (1 + (a.double() @ b.double().T).abs())
    found = select(build, x, weight, bias, Rule(k=9, boost=Boost(a, b, "more")), False)
    expected = scores.sort(dim=1, descending=True, stable=True).indices[:, :9].sort(dim=1).values
    assert torch.equal(found.support.latents.view(300, 9), expected)
    assert torch.equal(found.u.double().view(300, 9), truth.gather(1, expected))
    assert torch.equal(found.u.double() * (1 + found.sides["more"].double()), scores.gather(1, expected).view(-1))
    x, weight, bias = states_and_matrix(300, 40, 500)
    plain = select(build, x, weight, bias, Rule(k=9), False)
    found = select(build, x, weight, bias, Rule(k=9, boost=Boost(0 * a, b, "more")), False)
    assert torch.equal(plain.support.latents, found.support.latents) and torch.equal(plain.u, found.u)


@pytest.mark.parametrize("build", ["int8", "int8, other registers", "bf16", "portable"])
@pytest.mark.parametrize("threads", [2, 3])
def test_the_number_of_threads_changes_no_bit(build, threads):
    x, weight, bias = states_and_matrix(700, 33, 300)
    results = []
    before = torch.get_num_threads()
    try:
        for n in (1, threads):
            torch.set_num_threads(n)
            support, u = places_and_values(library(build).select(x, weight, bias, Rule(k=5), False))
            results.append((support.rows, support.latents, u))
    finally:
        torch.set_num_threads(before)
    assert all(torch.equal(a, b) for a, b in zip(*results, strict=True))


AWKWARD = pytest.mark.parametrize(
    "kind", ["ordinary", "extreme coordinates", "extreme rows", "constant", "zeros", "twins"]
)


def awkward(kind, rows, width, latents):
    """States and a matrix of small integers, whose scores float32 holds exactly."""
    generator = torch.Generator().manual_seed(rows + 31 * width + 977 * latents)
    x = torch.randint(-8, 9, (rows, width), generator=generator).float()
    weight = torch.randint(-8, 9, (latents, width), generator=generator).float()
    bias = torch.randint(-20, 21, (latents,), generator=generator).float()
    if kind == "extreme coordinates":
        x[:, 0] *= 512
        weight[:, -1] *= 64
    elif kind == "extreme rows":
        x[::3] *= 2**10
        weight[::5] *= 2
    elif kind == "constant":
        x[:] = x[0, 0]
        weight[:] = weight[:, :1].clone()
    elif kind == "zeros":
        x[::2], weight[1::2], bias[:] = 0, 0, 0
    elif kind == "twins":
        weight[:] = weight[0].clone()
    return x, weight, bias


@pytest.mark.parametrize("build", BUILDS)
@pytest.mark.parametrize("two_sided", [False, True])
@AWKWARD
@settings(max_examples=8, deadline=None)
@given(rows=st.integers(1, 150), width=st.integers(1, 90), latents=st.integers(1, 200), share=st.floats(0, 1))
def test_where_float32_is_exact_so_is_the_choice_ties_included(build, two_sided, kind, rows, width, latents, share):
    x, weight, bias = awkward(kind, rows, width, latents)
    scores = x.double() @ weight.double().T + bias.double()
    order = (scores.abs() if two_sided else scores).sort(dim=1, descending=True, stable=True).indices
    for k in {1, max(1, round(share**3 * latents)), latents}:
        support, u = places_and_values(select(build, x, weight, bias, Rule(k=k), two_sided))
        expected = order[:, :k].sort(dim=1).values
        assert torch.equal(support.latents.view(rows, k), expected)
        assert torch.equal(u.double().view(rows, k), scores.gather(1, expected))
    found = select(build, x, weight, bias, Rule(floor=3.0), two_sided).support
    assert torch.equal(found.rows * latents + found.latents, above(scores, 3.0, two_sided))


@pytest.mark.parametrize("build", TORCH)
@pytest.mark.parametrize("two_sided", [False, True])
@AWKWARD
@settings(max_examples=8, deadline=None)
@given(rows=st.integers(1, 150), width=st.integers(1, 90), groups=st.integers(1, 12), share=st.floats(0, 1))
def test_torch_s_choice_is_exact_where_float32_is_up_to_which_of_equal_scores(
    build, two_sided, kind, rows, width, groups, share
):
    x, weight, bias = awkward(kind, rows, width, groups * GROUP)
    scores = x.double() @ weight.double().T + bias.double()
    for k in {1, max(1, round(share * groups)), groups}:
        found = select(build, x, weight, bias, Rule(k=k), two_sided)
        latents = found.support.latents.view(rows, k)
        assert all(len(set(row)) == k for row in latents.tolist())
        assert torch.equal(found.u.double().view(rows, k), scores.gather(1, latents))
        made = found.u.abs() if two_sided else found.u
        expected = (scores.abs() if two_sided else scores).topk(k).values
        assert torch.equal(made.double().view(rows, k).sort(descending=True).values, expected)
    found = select(build, x, weight, bias, Rule(floor=3.0), two_sided).support
    assert torch.equal(found.rows * len(weight) + found.latents, above(scores, 3.0, two_sided))


@pytest.mark.parametrize("build", TORCH)
@pytest.mark.parametrize("boosted", [False, True])
def test_rows_whose_floor_was_foretold_too_high_are_done_again(build, boosted, monkeypatch):
    monkeypatch.setattr(candidates, "BLOCK", 32)
    x, weight, bias = states_and_matrix(200, 40, 800)
    bias = 0 * bias
    weight[:400] = weight[0] + 1e-3 * weight[:400]  # where these are best the k-th score lies close to the bound
    x[:32] = weight[0] + 0.1 * x[:32]
    x[100:110] *= -1e3
    rule = Rule(k=9, boost=Boost(x.roll(1, 0), weight.roll(1, 0), "more") if boosted else None)
    again = []
    reaching = candidates._reaching
    monkeypatch.setattr(
        candidates, "_reaching", lambda p, w, s, careful=False: again.append(careful) or reaching(p, w, s, careful)
    )
    check(select(build, x, weight, bias, rule, False), x, weight, bias, rule, False)
    assert again[-1], "some rows were"


@pytest.mark.parametrize("build", TORCH)
def test_where_nearly_all_are_nominees_the_dictionary_itself_chooses(build, monkeypatch):
    monkeypatch.setattr(candidates, "SOME", 100)
    x, weight, bias = states_and_matrix(50, 40, 800)
    assert select(build, x, weight, bias, Rule(k=9), False) is not None
    weight[:], bias[:] = weight[0].clone(), 0
    for rule in (Rule(k=9), Rule(floor=-1e6)):
        assert select(build, x, weight, bias, rule, False) is None


def test_torch_s_int8_rests_where_its_bounds_tell_little_and_comes_back():
    (x, weight, bias), kinds = states_and_matrix(200, 96, 1024), []
    good, weight[:], bias = weight.clone(), weight[0], 0.5 * bias  # all latents are equal but for their biases

    def seen(kind):
        class Seen(type(kind)):
            def products(self, *arguments):
                kinds[-1] = self.name
                return super().products(*arguments)

            if isinstance(kind, Counting):

                def whole(self, *arguments, **options):
                    kinds[-1] = self.name
                    return super().whole(*arguments, **options)

        return Seen()

    selection = Candidates(*(seen(kind) for kind in in_torch("torch").kinds))

    def choice():
        kinds.append("")
        check(selection.select(x, weight, bias, Rule(k=5), False), x, weight, bias, Rule(k=5), False)

    for _ in range(2 + 16 + 1):
        choice()
    weight[:] = good
    for _ in range(32):
        choice()
    assert kinds[1:17] == ["bf16"] * 16 == kinds[18:34], "both times as long as the rest is"
    assert kinds[0] == kinds[17] == kinds[50] == "int8", "and then it is tried again, and serves"


def above(scores, floor, two_sided):
    return ((scores.abs() if two_sided else scores) > floor).flatten().nonzero().view(-1)


@pytest.mark.parametrize("other", ["bf16", "int8, other registers", "bf16, other registers"])
def test_all_kinds_of_nomination_give_the_same_bits(other):
    x, weight, bias = states_and_matrix(500, 96, 1024)
    x[:, 7] *= 300
    found = [select(build, x, weight, bias, Rule(k=12), False) for build in ("int8", other)]
    assert torch.equal(found[0].support.latents, found[1].support.latents)
    assert torch.equal(found[0].u, found[1].u)


@pytest.mark.parametrize("rule", [Rule(k=12), Rule(floor=0.5)])
def test_marks_that_wait_for_more_than_there_is_room_are_scored_in_between(rule):
    """With matrix registers. Nearly half of all places exceed the floor; with k limits are known the second time."""
    build = "int8" if matrix_registers.here() else "int8, other registers"
    native, (x, weight, bias) = library(build), states_and_matrix(1100, 64, 3000)
    for _ in range(2):
        check(native.select(x, weight, bias, rule, False), x, weight, bias, rule, False)


@pytest.mark.parametrize("set_by_others", [False, True])
def test_matrix_registers_are_left_as_they_were(set_by_others):
    """Other libraries use them too, and remember how they had set them."""
    try:
        native = Native(*matrix_registers.BY_HAND, nominees="int8")
    except BuildError as error:
        pytest.skip(f"no compiled kernels here: {error}")
    if not native.amx:
        pytest.skip("this processor's registers are too narrow")
    native.library.pretended_setting.restype = ctypes.POINTER(ctypes.c_uint8 * 64)
    setting = native.library.pretended_setting().contents
    before = bytes([1, *range(63)] if set_by_others else 64)
    ctypes.memmove(setting, before, 64)
    x, weight, bias = states_and_matrix(300, 64, 512)
    native.select(x, weight, bias, Rule(k=5), False)
    NativeProduct(native.library, native.amx)(x, weight, torch.empty(300, 512), add=False)
    assert bytes(setting) == before


def test_few_scores_are_made_in_float32_even_where_coordinates_are_extreme():
    native, (x, weight, bias) = library("int8"), states_and_matrix(500, 96, 4096)
    weight, bias = torch.nn.functional.normalize(weight, dim=1), 0 * bias
    for scale in (1, 300):
        x[:, 7] *= scale
        before = native.scored
        check(native.select(x, weight, bias, Rule(k=12), False), x, weight, bias, Rule(k=12), False)
        assert 12 * len(x) <= native.scored - before < FEW * x.shape[0] * len(weight)


@pytest.mark.parametrize("build", ["int8", "int8, other registers", "torch int8"])
@pytest.mark.parametrize("two_sided", [False, True])
def test_nothing_is_missed_where_all_coordinates_are_rounded_the_same_way(build, two_sided):
    generator = torch.Generator().manual_seed(0)
    x, weight = (torch.randint(0, 100, (n, 800), generator=generator).float() for n in (80, 640))
    x += 0.49
    weight += torch.where(torch.arange(640) % 2 == 0, 0.49, -0.49).unsqueeze(1)
    x[:, 0] = weight[:, 0] = 126.5  # the steps of int8 are 1
    bias = torch.zeros(640)
    for rule in (Rule(k=8), Rule(floor=float((x @ weight.T).quantile(0.98)))):
        check(select(build, x, weight, bias, rule, two_sided), x, weight, bias, rule, two_sided)


def test_what_int8_bounds_exceed_products_by_is_nine_deviations_of_uniform_noise():
    library("int8")  # or this is skipped
    generator, native = torch.Generator().manual_seed(0), Native(MACHINE, nominees="int8")  # the same noise each time
    part = torch.randint(0, 100, (400,), generator=generator) + 0.5
    part[0] = 126.5  # steps are 1, and all others are halfway between two of them
    x, weight = torch.cat([part, part]).unsqueeze(0), torch.cat([part, -part]).expand(1024, 800).contiguous()
    deviation = float((x.square().sum() + weight[0].square().sum()).div(12).sqrt())
    bias, step = torch.linspace(-15 * deviation, 0, 1024), 15 * deviation / 1023
    exceeded = []  # products are 0, so what is scored is what a bound lifts above the floor
    for _ in range(300):
        before = native.scored
        memory.release()  # nothing that is kept for the weights decides about the noise
        native.select(x, weight, bias, Rule(floor=0.0), False)
        exceeded.append((native.scored - before) * step / deviation)
    deviations = torch.tensor(exceeded)
    assert 9 < float(deviations.mean()) < 9.5
    assert 0.85 < float(deviations.std()) < 1.15, "noise that is not taken out again has 1.4 or 1.7"


@pytest.mark.parametrize("build", ["int8", "int8, other registers", "torch int8"])
@pytest.mark.parametrize("width", [512, 1024])
def test_int8_nominates_few_more_than_are_chosen_of_wide_rows(build, width):
    x, weight, bias = states_and_matrix(1000, width, 4096)
    weight, bias = torch.nn.functional.normalize(weight, dim=1), 0 * bias
    kernel = (in_torch if build in TORCH else library)(build)
    kernel.select(x, weight, bias, Rule(k=32), False)
    before = kernel.scored
    kernel.select(x, weight, bias, Rule(k=32), False)
    assert 32 * len(x) <= kernel.scored - before < 2.5 * 32 * len(x)


@pytest.mark.parametrize("build", ["int8", "int8, other registers", "bf16", "bf16, other registers"])
@pytest.mark.parametrize("two_sided", [False, True])
def test_the_k_best_of_rows_whose_best_scores_differ_much(build, two_sided):
    """What earlier rows tell of a row's limit is little then, so that limits are raised on the way. In some rows, whose
    best latents come first, that hides the others, and they are gone through again."""
    x, weight, bias = uneven_states(600, 96, 4096)
    x[::7] = x[::7] + 9 * weight[torch.arange(0, 600, 7) % 128]
    weight[:128] = weight[:128] + 0.5 * weight[:1]
    for _ in range(2):
        check(select(build, x, weight, bias, Rule(k=20), two_sided), x, weight, bias, Rule(k=20), two_sided)


@pytest.mark.parametrize("build", ["int8", "int8, other registers"])
def test_few_scores_are_made_in_float32_where_the_k_best_scores_of_rows_differ_much(build):
    native, (x, weight, bias) = library(build), uneven_states(2000, 512, 8192)
    native.select(x, weight, bias, Rule(k=32), False)
    before = native.scored
    check(native.select(x, weight, bias, Rule(k=32), False), x, weight, bias, Rule(k=32), False)
    assert native.scored - before < 5.5 * 32 * len(x)


def test_int8_rests_where_its_bounds_tell_little_and_comes_back():
    library("int8"), library("bf16")  # or this is skipped
    native, (x, weight, bias) = Native(MACHINE), states_and_matrix(200, 96, 1024)
    good, weight[:] = weight.clone(), weight[0]  # all latents are equal but for their biases
    kinds = []
    for _ in range(2 + 16 + 2):
        check(native.select(x, weight, bias, Rule(k=5), False), x, weight, bias, Rule(k=5), False)
        kinds.append(digits(native.kept[weight].packed.kind))
    weight[:] = good
    for _ in range(31):
        native.select(x, weight, bias, Rule(k=5), False)
        kinds.append(digits(native.kept[weight].packed.kind))
    resting = [16 * ["bf16"], 32 * ["bf16"]]
    assert kinds == ["int8", *resting[0], "int8", *resting[1], "int8"], (
        "a longer rest after the second time; then it serves again"
    )
    assert native.whole_rows == 0


@pytest.mark.parametrize("build", ["int8", "int8, other registers", "portable"])
def test_rows_with_more_places_than_room_are_computed_as_a_whole_and_counted(build, monkeypatch):
    monkeypatch.setattr(native_module, "ROOM", 128)
    native, (x, weight, bias) = library(build), states_and_matrix(20, 8, 2000)
    before, rule = native.whole_rows, Rule(floor=0.5)
    bias[:] -= 3
    x[0] = 100 * x[0]
    check(native.select(x, weight, bias, rule, False), x, weight, bias, rule, False)
    assert before < native.whole_rows < before + len(x)


@pytest.mark.parametrize("build", BUILDS)
@pytest.mark.parametrize("boosted", [False, True])
def test_what_earlier_batches_were_like_changes_no_bit(build, boosted):
    x, weight, bias = states_and_matrix(700, 40, 600)
    bias = 0.01 * bias
    boost = Boost(x.roll(1, 0), weight.roll(1, 0), "more") if boosted else None
    fresh = select(build, x, weight.clone(), bias, Rule(k=7, boost=boost), False)
    others = (x + 3, x.abs(), -x.abs(), 0 * x, torch.cat([x[:650].abs(), x[650:]]))  # scores high, low, alike, mixed
    for other in others:
        select(build, other, weight, bias, Rule(k=7, boost=boost), False)
        found = select(build, x, weight, bias, Rule(k=7, boost=boost), False)
        assert torch.equal(found.support.latents, fresh.support.latents) and torch.equal(found.u, fresh.u)
        assert all(torch.equal(found.sides[head], fresh.sides[head]) for head in fresh.sides)


@pytest.mark.parametrize("build", BUILDS)
def test_equal_scores_go_to_earlier_latents(build):
    found = library(build).select(torch.ones(2, 4), torch.ones(50, 4), torch.zeros(50), Rule(k=3), False)
    assert found.support.latents.tolist() == [0, 1, 2] * 2


@pytest.mark.parametrize("build", BUILDS)
def test_what_is_not_a_number_is_passed_on(build):
    x, weight, bias = states_and_matrix(3, 8, 60)
    x[1, 2] = torch.nan
    u = library(build).select(x, weight, bias, Rule(k=4), False).u
    assert u.view(3, 4).isnan().all(1).tolist() == [False, True, False]


@pytest.mark.parametrize("build", TORCH)
def test_torch_s_selection_leaves_few_scores_to_the_dictionary(build, monkeypatch):
    x, weight, bias = states_and_matrix(8, 20, 160)
    monkeypatch.setattr(candidates, "FEWEST", 8 * 160)
    assert select(build, x[:8], weight, bias, Rule(k=3), False) is None
    monkeypatch.setattr(candidates, "FEWEST", 8 * 160 - 1)
    assert select(build, x[:8], weight, bias, Rule(k=3), False) is not None


@pytest.mark.parametrize("build", TORCH)
@pytest.mark.parametrize("bad", [torch.nan, torch.inf, -torch.inf, 3e38])
@pytest.mark.parametrize("where", ["states", "weight", "bias", "shift", "boost's states", "boost's weight"])
def test_torch_s_selection_leaves_what_is_not_finite_to_the_dictionary(build, bad, where):
    x, weight, bias = states_and_matrix(3, 8, 64)
    a, b, shift = x.roll(1, 1), weight.roll(1, 1), 0 * bias
    numbers = {"states": x, "weight": weight, "bias": bias, "shift": shift, "boost's states": a, "boost's weight": b}
    for number, served in ((0.0, True), (bad, False)):
        numbers[where].view(-1)[-3] = number
        for rule in (Rule(4, shift=shift, boost=Boost(a, b, "more")), Rule(0, 1.0, shift, boost=Boost(a, b, "more"))):
            assert (select(build, x, weight, bias, rule, False) is not None) == served


@pytest.mark.parametrize("build", ["int8", "bf16", "portable", *TORCH])
@pytest.mark.parametrize(
    "preset",
    [
        TopK(160, k=7),
        AbsTopK(160, k=7),
        BatchTopK(160, k=7),
        AbsTopK(160, k=7, scope="batch"),
        ReluL1(160),
        Crosscoder(160, k=7, views=2),
        Crosscoder(160, k=7, sparsity=0.5, views=2),
        FeatureChoice(160, k=7),
        TopAFA(160),
        TopAFA(160, most=5),
        JumpReLU(160),
        GSAE(160, k=7),
        GSAE(160, k=7, beta=4.0),
    ],
    ids=lambda preset: preset.name + getattr(preset, "scope", ""),
)
def test_a_dictionary_s_own_choice(build, preset):
    model = preset.build(20, torch_generator(0, "choice")).train()
    chosen_alike(build, model)


@pytest.mark.parametrize("build", ["int8", "bf16", "portable", *TORCH])
def test_the_weight_of_gradients_goes_with_ranks_over_a_batch(build):
    score, ranks = GradientWeighted(1.0), Rank("batch", 7)
    model = linear_autoencoder(20, ranks, torch_generator(0, "batch"), n_latents=160, score=score)
    chosen_alike(build, model.train())


def chosen_alike(build, model):
    """A kernel chooses for a dictionary what this does itself, and is asked wherever it can serve."""
    generator = torch_generator(0, "choice")
    x, g = (torch.randn(300, 20, generator=generator) for _ in range(2))
    g[::5] = 0
    model.start(x)
    model.encoder.bias.data.add_(torch.randn(160, generator=generator))
    asked = []

    def asking(*arguments):
        asked.append(arguments)
        return select(build, *arguments)

    for _ in range(3):  # hints that a selection keeps must not change the result
        found = choose(model, x, beside={"g": g}, peaks=False, select=asking)
        expected = choose(model, x, beside={"g": g}, peaks=False)
        assert set(zip(found.support.rows.tolist(), found.support.latents.tolist(), strict=True)) == set(
            zip(expected.support.rows.tolist(), expected.support.latents.tolist(), strict=True)
        )
        assert found.sides.keys() == expected.sides.keys()
        for head, made in found.sides.items():
            torch.testing.assert_close(made.sort().values, expected.sides[head].sort().values)
        x = x.roll(7, 0) * 0.7
    assert len(asked) >= 3


@pytest.mark.parametrize("build", ["int8", "single", "portable", *TORCH])
@pytest.mark.parametrize("preset", [BatchTopK(160, k=7), Crosscoder(160, k=7, views=2), FeatureChoice(160, k=7)])
def test_hints_do_not_change_a_bit(build, preset):
    generator = torch_generator(0, "choice")
    x = torch.randn(300, 20, generator=generator)
    found = []
    for beforehand in (x, 3 * x.roll(1, 1)):
        model = preset.build(20, torch_generator(0, "hints")).train()
        model.start(x)
        for rows in (beforehand, x):
            chosen = choose(model, rows, beside={}, peaks=False, select=partial(select, build))
        found.append(chosen)
    assert torch.equal(found[0].u, found[1].u) and torch.equal(found[0].support.latents, found[1].support.latents)


def test_what_a_rule_cannot_say_is_left_to_the_dictionary():
    def refuse(*args):
        raise AssertionError("must not be asked")

    generator = torch_generator(0, "choice")
    x = torch.randn(30, 8, generator=generator)
    model = TopK(20, k=3).build(8, generator).train()
    for asked in (partial(choose, peaks=True), partial(choose, peaks=False)):
        model = model.double() if not asked.keywords["peaks"] else model
        rows = x.to(model.encoder.weight.dtype)
        assert len(asked(model, rows, beside={}, select=refuse).u) == 90


def test_a_compiler_that_fails_is_a_build_error_and_leaves_nothing_behind(tmp_path, monkeypatch):
    fake = tmp_path / "cc"
    fake.write_text('#!/bin/sh\n[ "$1" = --version ] && echo fake 1.0 && exit 0\necho "no such option" >&2; exit 1\n')
    fake.chmod(0o755)
    monkeypatch.setenv("CC", str(fake))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    with pytest.raises(BuildError, match="no such option"):
        Native(MACHINE)
    assert not [path for path in (tmp_path / "cache").rglob("*") if path.is_file()]
    monkeypatch.setenv("CC", os.fspath(tmp_path / "missing"))
    with pytest.raises(BuildError, match="no C compiler"):
        Native(MACHINE)


def test_a_cache_folder_that_cannot_be_made_is_a_build_error(tmp_path, monkeypatch):
    library("single")  # skips where there is no compiler
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    with pytest.raises(BuildError, match="cannot be had"):
        Native(MACHINE)


def test_what_is_kept_for_a_weight_goes_with_it_and_with_a_release():
    native = library("single")
    x, weight, bias = states_and_matrix(5, 8, 40)
    native.select(x, weight, bias, Rule(k=2), False)
    assert weight in native.kept
    memory.release()
    assert weight not in native.kept
