"""What a training step costs, counted: no clock, so no noise."""

import pytest
import torch

from overtone.core.catalogue import entries
from overtone.core.seeds import torch_generator
from overtone.dictionaries.kernels import candidates, dispatch
from overtone.training import step as steps
from overtone.training.counting import Counting
from overtone.training.run import Run
from overtone.training.schedules import Schedule

ROWS, LATENTS, WIDTH = 12000, 256, 16  # rows enough that memory for a block of them is not large
FUSED = ("abs_top_k", "batch_top_k", "matryoshka", "mutual_choice", "random_directions", "top_k")


def cost_of(name, kernels, monkeypatch, dense_with=0):
    """The counts of a step that is not the first. dense_with: 0 leaves products with the rows of few latents, which
    auxiliary terms make, to the test about these."""
    monkeypatch.setattr(steps, "DENSE_WITH", dense_with)
    monkeypatch.setenv("OVERTONE_KERNELS", kernels)
    dispatch._of_kind.cache_clear()
    preset = entries("dictionaries")[name].thing.example(n_latents=LATENTS, k=8)
    generator = torch_generator(0, "counting")
    x = torch.randn(ROWS, WIDTH, generator=generator)
    run = Run("", preset, preset.build(WIDTH, generator).train(), lr=1e-3, schedule=Schedule(), n_tokens=10**6)
    run.begin(x)
    run.advance(x)
    with Counting(ROWS, LATENTS, WIDTH) as cost:
        run.advance(x)
    return cost


@pytest.mark.parametrize("name", FUSED)
def test_a_sparse_step_makes_one_dense_product(name, monkeypatch):
    cost = cost_of(name, "plain", monkeypatch)
    assert 1 <= cost.products < 1.05
    assert cost.matrices <= 2  # pre-activations, and scores where they differ


@pytest.mark.parametrize("kind", dispatch.KINDS, ids=lambda kind: kind.name)
@pytest.mark.parametrize("name", FUSED)
def test_torch_s_fast_selection_makes_one_product_and_keeps_no_large_matrix(name, kind, monkeypatch):
    if not kind.is_fast():
        pytest.skip(f"this processor has no products of {kind.name} numbers")
    monkeypatch.setenv("OVERTONE_NOMINEES", kind.name)
    monkeypatch.setattr(candidates, "BLOCK", 128)
    monkeypatch.setattr(candidates, "FEWEST", 0)
    cost = cost_of(name, "torch", monkeypatch)
    assert 1 <= cost.products < 1 + 1 / WIDTH + 0.1, "biases are one more coordinate, and some rows are done again"
    assert cost.matrices == 0


@pytest.mark.parametrize("name", FUSED)
def test_with_the_compiled_kernels_torch_makes_no_dense_product_and_keeps_no_large_matrix(name, monkeypatch):
    monkeypatch.setenv("OVERTONE_KERNELS", "auto")
    dispatch._of_kind.cache_clear()
    if not dispatch.kernels_for("cpu").name.startswith("compiled"):
        pytest.skip("no compiled kernels here")
    cost = cost_of(name, "compiled", monkeypatch)
    assert cost.products < 0.05
    assert cost.matrices == 0


@pytest.mark.parametrize("name", ["crosscoder", "feature_choice", "top_afa"])
def test_scores_with_lengths_and_budgets_of_columns_and_energies_need_no_large_matrix_either(name, monkeypatch):
    monkeypatch.setenv("OVERTONE_KERNELS", "auto")
    dispatch._of_kind.cache_clear()
    if not dispatch.kernels_for("cpu").name.startswith("compiled"):
        pytest.skip("no compiled kernels here")
    assert cost_of(name, "compiled", monkeypatch).matrices == 0


def test_an_auxiliary_term_makes_products_with_the_rows_of_the_latents_it_asks_only(monkeypatch):
    asked, was = [], steps.Step.decoded_from
    monkeypatch.setattr(
        steps.Step, "decoded_from", lambda step, latents, k: asked.append(len(latents)) or was(step, latents, k)
    )
    cost = cost_of("mutual_choice", "plain", monkeypatch, dense_with=5)
    assert 0 < asked[-1] < LATENTS / 8
    assert 1 + 4.9 * asked[-1] / LATENTS < cost.products < 1.05 + 5 * asked[-1] / LATENTS


def test_a_dense_step_makes_five_products(monkeypatch):
    assert 5 <= cost_of("relu_l1", "plain", monkeypatch).products < 5.2


def test_what_is_counted():
    x, w = torch.randn(8, 4), torch.randn(32, 4)
    with Counting(8, 32, 4) as cost:
        kept = [x @ w.T, x @ w.T]
        float((x @ w.T).sum())
        del kept
        x @ w.T
    assert (cost.products, cost.matrices, cost.waits) == (4, 3, 1)
