"""Gradients that wait for the update change nothing but the memory and time that a step takes."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from overtone.dictionaries.codes import Support
from overtone.dictionaries.kernels import sparse, waiting
from overtone.dictionaries.kernels.compiler import BuildError
from overtone.dictionaries.kernels.dispatch import using
from overtone.dictionaries.kernels.native import MACHINE, Native
from overtone.dictionaries.kernels.native_update import NativeUpdate
from overtone.dictionaries.kernels.update import Moments, Update
from overtone.dictionaries.kernels.waiting import Sums
from overtone.dictionaries.presets.abs_top_k import AbsTopK
from overtone.dictionaries.presets.batch_top_k import BatchTopK
from overtone.dictionaries.presets.g_sae import GSAE
from overtone.dictionaries.presets.mp_sae import MPSAE
from overtone.dictionaries.presets.top_k import TopK
from overtone.training import step as steps
from overtone.training.run import Run
from overtone.training.schedules import Schedule

ROWS, WIDTH, LATENTS, STEPS = 60, 16, 96, 6


@pytest.fixture(params=["machine", "portable"])
def native(request):
    try:
        return Native(*[MACHINE][: request.param == "machine"])
    except BuildError as error:
        pytest.skip(f"no compiled kernels here: {error}")


def places(rows, latents, share):
    """Some places, no two the same; latents have none, some or many of them."""
    often = torch.linspace(0, 2 * share, latents)
    return Support.from_mask(torch.rand(rows, latents) < often)


@settings(max_examples=20, deadline=None)
@given(rows=st.integers(1, 40), width=st.integers(1, 40), latents=st.integers(1, 70), share=st.floats(0.01, 1))
def test_no_gradient_is_longer_than_its_bound(rows, width, latents, share):
    try:
        kernels = Native(MACHINE)
    except BuildError as error:
        pytest.skip(f"no compiled kernels here: {error}")
    at, states = places(rows, latents, share), torch.randn(rows, width)
    values = torch.randn(len(at.latents))
    totals, most, ordered = kernels.weighed(values, states, None, at)
    made, expected = kernels.sum_by_latent(values, states, at)
    assert float(made.norm()) <= most * (1 + 1e-5)
    assert torch.equal(totals, expected) and torch.equal(ordered, values[at.by_latent[0]])
    alike = states[:1].expand_as(states).contiguous()  # all of one direction: no bound could be smaller
    _, most, _ = kernels.weighed(values.abs(), alike, alike.norm(dim=1), at)
    assert most == pytest.approx(float(kernels.sum_by_latent(values.abs(), alike, at)[0].norm()), rel=1e-4)


@pytest.mark.parametrize("unit", [False, True])
@pytest.mark.parametrize("width", [3, 16, 270, 600])
@pytest.mark.parametrize("threads", [1, 2])
def test_an_update_that_makes_its_gradient_is_the_one_that_is_given_it(native, unit, width, threads):
    at, update = places(50, 200, 0.05), NativeUpdate(native.library)
    sums = Sums(native, torch.randn(len(at.latents)), torch.randn(50, width), at, 0.0)
    start = torch.nn.functional.normalize(torch.randn(200, width), dim=1)
    found = []
    torch.set_num_threads(threads)
    try:
        for waits in (True, False):
            draw = torch.Generator().manual_seed(0)
            mean, square = (torch.randn(200, width, generator=draw).square() for _ in range(2))
            one = Moments(start.clone(), torch.empty(0), mean, square, torch.tensor(2.0), unit)
            (NativeUpdate.adam_of_sums if waits else Update.adam_of_sums)(update, one, sums, 0.1, (0.9, 0.999))
            found.append([one.parameter, one.mean, one.square, one.step])
    finally:
        torch.set_num_threads(1)
    for mine, expected in zip(*found, strict=True):
        torch.testing.assert_close(mine, expected, rtol=1e-5, atol=1e-6)


def course(preset, clip, dead):
    """Parameters and moments after some steps."""
    x = torch.randn(STEPS * ROWS, WIDTH, generator=torch.Generator().manual_seed(1)) + 0.5
    g = torch.randn(x.shape, generator=torch.Generator().manual_seed(2)) if "g" in preset.needs else None
    model = preset.build(WIDTH, torch.Generator().manual_seed(0)).train()
    run = Run("waiting", preset, model, lr=1e-2, schedule=Schedule(), n_tokens=STEPS * ROWS)
    run.adam.clip = clip
    run.begin(x)
    if dead:
        run.firing.state["dead"] = torch.arange(0, LATENTS, 3)
    for rows in torch.arange(len(x)).split(ROWS):
        run.advance(x[rows], None, None if g is None else g[rows])
    return run.tensors()


@pytest.mark.parametrize("make", [TopK, AbsTopK, BatchTopK, GSAE, MPSAE])
@pytest.mark.parametrize("dead", [False, True])
@pytest.mark.parametrize("clip", [1e9, 1e-3])
def test_a_training_whose_gradients_wait_is_the_same(make, dead, clip, monkeypatch):
    """Also where other terms look at the same parameters, and where gradients are shortened. To the bit, but for the
    order of three terms."""
    preset = make(LATENTS, k=4)
    with using("auto"):
        found = course(preset, clip, dead)
        monkeypatch.setattr(Native, "weighed", sparse.Torch.weighed)
        expected = course(preset, clip, dead)
    for name, tensor in expected.items():
        torch.testing.assert_close(found[name], tensor, rtol=1e-4 if make is MPSAE else 0, atol=1e-5 * (make is MPSAE))


@pytest.mark.parametrize("kind", ["auto", "torch", "plain"])
@pytest.mark.parametrize("clip", [1e9, 1e-3])
def test_gradients_of_some_rows_join_the_others_wherever_these_are_made(kind, clip, monkeypatch):
    """AuxK by dense products with the rows of dead latents, and place by place."""
    found = []
    for dense_with in (5, 0):
        monkeypatch.setattr(steps, "DENSE_WITH", dense_with)
        with using(kind):
            found.append(course(TopK(LATENTS, k=4), clip, dead=True))
    for name, tensor in found[1].items():
        torch.testing.assert_close(found[0][name], tensor, rtol=1e-3, atol=1e-5)


def test_a_step_whose_gradients_are_short_makes_no_matrix_of_them(native, monkeypatch):
    made, was = [], Native.sum_by_latent
    monkeypatch.setattr(Native, "sum_by_latent", lambda *arguments: made.append(1) or was(*arguments))
    with using("auto"):
        course(TopK(LATENTS, k=4), 1e9, dead=False)
        short = len(made)
        course(TopK(LATENTS, k=4), 1e-3, dead=False)
    assert (short, len(made)) == (0, 2 * STEPS)


def test_what_waits_beside_another_gradient_is_added_to_it(native):
    at = places(9, 7, 0.5)
    weight = torch.nn.Parameter(torch.zeros(7, 5))
    sums = Sums(native, torch.randn(len(at.latents)), torch.randn(9, 5), at, 1.0)
    with waiting.may_wait([weight]) as they:
        assert waiting.waiting() is they and weight in they and torch.zeros(1) not in they
        they.add(weight, sums)
        assert they.alone(weight) is sums
        they.add(weight, sums)
        assert they.alone(weight) is None
        torch.testing.assert_close(weight.grad, 2 * sums.made())
        they.add(weight, sums)
        assert they.alone(weight) is None
        torch.testing.assert_close(weight.grad, 3 * sums.made())
    assert waiting.waiting() is None
