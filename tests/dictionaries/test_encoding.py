"""Codes of many rows are found by the kernels of training where that is faster, and only there."""

from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context

import pytest
import torch

from overtone.core.catalogue import entries
from overtone.core.errors import SettingError
from overtone.dictionaries import autoencoder
from overtone.dictionaries.kernels import choose, memory
from overtone.dictionaries.kernels.dispatch import kernels_for, using

pytestmark = pytest.mark.usefixtures("however_few_scores")
ROWS, WIDTH, LATENTS = 300, 40, 640
ENTRIES = entries("dictionaries")


@pytest.fixture(params=["compiled", "torch"])
def kernels(request, monkeypatch):
    """Kernels that are used whatever the work is."""
    monkeypatch.setattr(autoencoder, "WORTH", 0)
    with using(request.param):
        try:
            found = kernels_for("cpu")
        except SettingError as error:
            pytest.skip(str(error))
        if found.select is None:
            pytest.skip("no fast products of few bits here")
        yield found


@pytest.fixture
def x(generator):
    return torch.randn(ROWS, WIDTH, generator=generator)


def made(name, generator, level=None):
    """A dictionary with the thresholds of its inference form at a level."""
    found = ENTRIES[name].thing.example(n_latents=LATENTS, k=4).build(WIDTH, generator).eval().requires_grad_(False)
    if level is not None:
        theta = found.selection.log_theta if found.selection.learned else found.selection.theta
        theta.data.fill_(level)
    return found


def share(dictionary, x):
    return float(dictionary.encode(x).counts().float().mean()) / LATENTS


def fast(dictionary, x, beside=None):
    """Whether kernels find its codes."""
    return dictionary._choose_fast(dictionary.normaliser(x) - dictionary.centre(), beside or {}) is not None


LEVELS = {
    "top_k": None, "abs_top_k": None, "multi_top_k": None, "g_sae": None, "batch_top_k": 2.5, "matryoshka": 2.5,
    "feature_choice": 2.5, "jump_relu": 0.9, "relu_l1": 0.25,
}  # fmt: skip


@pytest.mark.parametrize(("name", "level"), LEVELS.items())
def test_ranks_and_thresholds_of_sparse_codes_are_found_by_kernels(name, level, kernels, generator, x):
    dictionary = made(name, generator, level)
    assert share(dictionary, x) <= choose.SPARSE and fast(dictionary, x)
    found = dictionary.encode(x)
    with using("plain"):
        expected = dictionary.encode(x)
    assert torch.equal(found.dense() != 0, expected.dense() != 0)
    torch.testing.assert_close(found.dense(), expected.dense(), rtol=1e-4, atol=1e-5)


def test_gradients_beside_states_are_heeded(kernels, generator, x):
    dictionary, g = made("g_sae", generator), torch.randn(ROWS, WIDTH, generator=generator)
    assert fast(dictionary, x, {"g": g})
    with using("plain"):
        expected, without = dictionary.encode(x, {"g": g}).dense(), dictionary.encode(x).dense()
    torch.testing.assert_close(dictionary.encode(x, {"g": g}).dense(), expected, rtol=1e-4, atol=1e-5)
    assert not torch.equal(expected != 0, without != 0)


def test_dense_codes_thresholds_without_end_and_half_precision_are_left_to_torch(kernels, generator, x):
    assert not fast(made("relu_l1", generator, 0.05), x)
    dictionary = made("feature_choice", generator, 2.5)
    dictionary.selection.theta[7] = torch.inf
    assert not fast(dictionary, x) and int((dictionary.encode(x).dense()[:, 7] != 0).sum()) == 0
    assert not fast(made("top_k", generator).bfloat16(), x.bfloat16())


@pytest.mark.parametrize(("name", "level"), [("g_sae", None), ("jump_relu", 0.9)])
def test_many_rows_are_encoded_part_by_part(name, level, kernels, generator, x, monkeypatch):
    dictionary = made(name, generator, level)
    beside = {"g": torch.randn(ROWS, WIDTH, generator=generator)} if name == "g_sae" else {}
    whole = dictionary.encode(x, beside).dense()
    monkeypatch.setattr(autoencoder, "AT_ONCE", 130)
    assert fast(dictionary, x, beside)
    assert torch.equal(dictionary.encode(x, beside).dense(), whole)


def test_several_threads_may_encode_with_the_same_dictionary(kernels, generator):
    dictionary = made("top_k", generator)
    parts = [torch.randn(1500, WIDTH, generator=generator) * scale for scale in (1, 30, 1000)] * 10
    expected = [dictionary.encode(part).dense() for part in parts]
    context = [copy_context() for _ in parts]
    with ThreadPoolExecutor(6) as pool:
        found = list(pool.map(lambda own, part: own.run(dictionary.encode, part).dense(), context, parts))
    assert all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))


def test_little_work_is_left_to_torch(kernels, generator, x, monkeypatch):
    dictionary = made("top_k", generator)
    assert fast(dictionary, x[: autoencoder.FEW_ROWS]) and not fast(dictionary, x[: autoencoder.FEW_ROWS - 1])
    monkeypatch.setattr(autoencoder, "WORTH", x.numel() * LATENTS + 1)
    assert not fast(dictionary, x)


def test_states_that_are_turned_in_memory_are_served(kernels, generator, x):
    dictionary, turned = made("top_k", generator), x.T.contiguous().T
    assert fast(dictionary, turned)
    assert torch.equal(dictionary.encode(turned).dense(), dictionary.encode(x).dense())


def test_where_gradients_are_wanted_codes_have_them(kernels, generator, x):
    dictionary = made("top_k", generator)
    x.requires_grad_()
    assert not fast(dictionary, x)
    dictionary.encode(x).values.sum().backward()
    assert bool((x.grad != 0).any())
    with torch.no_grad():
        assert fast(dictionary, x)


def test_nothing_is_kept_for_later(kernels, generator, x):
    dictionary = made("top_k", generator)
    dictionary.encode(x)
    assert not memory._local.pool.kept and not kernels.select.__self__.kept
