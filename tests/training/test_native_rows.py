"""Passes over rows of states are those of torch, whatever the sizes and whoever shares the work."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from overtone.dictionaries.kernels import memory
from overtone.dictionaries.kernels.compiler import BuildError
from overtone.dictionaries.kernels.dispatch import using
from overtone.dictionaries.kernels.native import MACHINE, Native
from overtone.dictionaries.kernels.native_rows import in_units
from overtone.dictionaries.lengths import of_length
from overtone.dictionaries.normalisers import FixedNorm, Scale, Unscaled
from overtone.dictionaries.presets.top_k import TopK
from overtone.training.run import Run
from overtone.training.schedules import Schedule

LENGTH = torch.tensor(3.0)


@pytest.fixture(scope="module", params=[MACHINE, "-O3"])
def rows(request):
    try:
        return Native(request.param).rows
    except BuildError as error:
        pytest.skip(f"no compiled kernels here: {error}")


@settings(max_examples=25, deadline=None)
@given(n=st.integers(0, 200), width=st.integers(1, 130), threads=st.sampled_from([1, 2]))
def test_states_in_units_are_those_of_the_normaliser(rows, n, width, threads):
    x, centre, scale = torch.randn(n, width), torch.randn(width), Scale()
    scale.factor.fill_(0.7)
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        inputs, centred = rows.in_units(scale, x, centre)
    finally:
        torch.set_num_threads(before)
    assert torch.equal(inputs, scale(x))
    torch.testing.assert_close(centred, scale(x) - centre, rtol=0, atol=1e-6)


@pytest.mark.parametrize("normaliser", [Unscaled(), FixedNorm(), Scale()])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("centre", [0.0, torch.ones(24)])
def test_whatever_the_library_does_not_know_is_left_to_torch(rows, normaliser, dtype, centre):
    x = torch.randn(10, 48, dtype=dtype)[:, ::2]  # not contiguous
    for found, right in zip(rows.in_units(normaliser, x, centre), in_units(normaliser, x, centre), strict=True):
        assert torch.equal(found, right)


@settings(max_examples=25, deadline=None)
@given(n=st.integers(1, 100), width=st.integers(1, 130))
def test_rows_get_their_length_and_keep_their_direction(rows, n, width):
    x = torch.randn(n, width)
    found = rows.of_length(x, LENGTH).double()
    torch.testing.assert_close(found, 3 * torch.nn.functional.normalize(x.double(), dim=1), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("size", [0.0, 1e-38, 1e-30, 1e25, 1e37, float("nan")])
def test_a_row_of_any_size_gets_its_length_and_does_not_change_the_others(rows, size):
    x = torch.randn(5, 40)
    beside = torch.cat([x[:2], size * x[:1], x[2:]])
    found = rows.of_length(beside, LENGTH)
    assert torch.equal(found[[0, 1, 3, 4, 5]], rows.of_length(x, LENGTH))
    assert torch.equal(found[2].nan_to_num(7.0), of_length(size * x[:1], LENGTH)[0].nan_to_num(7.0))


@pytest.mark.parametrize("kind", ["auto", "torch"])
def test_memory_of_a_step_is_used_again_by_later_ones(kind):
    """What waits for the update must not refer to itself: nothing would free it."""
    x = torch.randn(2 * 1024, 128, generator=torch.Generator().manual_seed(0))
    preset = TopK(n_latents=256, k=4)
    with using(kind):
        run = Run("", preset, preset.build(128, torch.Generator().manual_seed(0)).train(), lr=1e-3,
                  schedule=Schedule(), n_tokens=10**6)  # fmt: skip
        run.begin(x)
        memory.release()
        taken = []
        for i in range(9):
            run.advance(x[i % 2 * 1024 :][:1024])
            taken.append(sum(map(len, memory._local.pool.kept.values())))
    assert taken[8] == taken[4]
