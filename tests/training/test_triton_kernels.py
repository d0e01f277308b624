"""The Triton kernels compute what the dense references compute, values and gradients alike: in Triton's interpreter on
a CPU, or compiled on a GPU with TRITON_INTERPRET=0."""

import os

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from overtone.dictionaries.codes import Support
from overtone.dictionaries.kernels import dispatch, reference
from overtone.dictionaries.normalisers import Scale, Unscaled

pytest.importorskip("triton", reason="Triton (a gigabyte) is not installed; `pip install overtone[kernels]`")

from interpreter import quicken
from overtone.dictionaries.kernels import triton_rows, triton_sparse

quicken()

INTERPRETED = os.environ["TRITON_INTERPRET"] == "1"
DEVICE = torch.device("cpu" if INTERPRETED else "cuda")
NAMES = ("centre", "weight", "bias", "values")


def support(kind: str, rows: int, latents: int, k: int) -> Support:
    """k places in each row; or a ragged number of them, some rows and latents without any."""
    scores = torch.rand(rows, latents, device=DEVICE)
    if kind == "row":
        return Support.from_indices(scores.topk(k, dim=1).indices, latents)
    return Support.from_mask((scores > 1 - k / latents) & (torch.arange(rows, device=DEVICE) % 3 != 1)[:, None])


def inputs(at: Support, width: int, dtype: torch.dtype) -> dict[str, torch.Tensor]:
    """Leaves of every kernel, and the states."""
    shapes = {"centre": (width,), "weight": (at.n_latents, width), "bias": (at.n_latents,), "values": (len(at.rows),)}
    leaves = {name: torch.randn(shape, dtype=dtype, device=DEVICE) for name, shape in shapes.items()}
    return {**leaves, "x": torch.randn(at.n_rows, width, dtype=dtype, device=DEVICE)}


def results(module, at: Support, given_: dict[str, torch.Tensor]) -> list[torch.Tensor]:
    """Both kernels' results and the gradients of a function of them, of the module's own leaves."""
    leaves = {name: given_[name].detach().clone().requires_grad_() for name in NAMES}
    centre, weight, bias, values = leaves.values()
    centred = (given_["x"] - centre).detach()
    true_u = at.take(centred @ weight.detach().T + bias.detach())
    u = module.preactivations(centred, centre, weight, bias, true_u, at)
    decoded = module.decode(values * u, weight, at)
    wave = torch.cos(torch.arange(decoded.numel(), device=DEVICE)).view_as(decoded).to(decoded.dtype)
    return [u, decoded, *torch.autograd.grad((decoded * wave).sum() + u.sin().sum(), list(leaves.values()))]


@pytest.mark.parametrize("kind", ["row", "ragged"])
@settings(max_examples=12, deadline=None)
@given(rows=st.integers(1, 7), width=st.integers(1, 5), latents=st.integers(1, 9), k=st.integers(1, 9))
def test_values_and_gradients_equal_the_dense_ones(kind, rows, width, latents, k):
    at = support(kind, rows, latents, min(k, latents))
    given_ = inputs(at, width, torch.float64)
    for found, expected in zip(results(triton_sparse, at, given_), results(reference, at, given_), strict=True):
        torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("near", [0, triton_sparse.NEAR])
@pytest.mark.parametrize("kind", ["row", "ragged"])
def test_bags_and_rows_longer_than_one_block_are_summed_whole(kind, near, monkeypatch):
    """More places in a row and of a latent, and more columns, than one program takes at a time, none a multiple."""
    monkeypatch.setattr(triton_sparse, "NEAR", near)
    places = triton_sparse.PLACES if near else triton_sparse.MANY_PLACES
    rows, latents, width = 2 * places + 3, places + 5, triton_sparse.SIDE + 13
    at = support(kind, rows, latents, places + 3)
    assert torch.bincount(at.latents).max() > places < torch.bincount(at.rows).max()
    given_ = inputs(at, width, torch.float64)
    for found, expected in zip(results(triton_sparse, at, given_), results(reference, at, given_), strict=True):
        torch.testing.assert_close(found, expected)


@pytest.mark.parametrize(("kind", "width"), [("ragged", 5), ("row", 5), ("row", triton_sparse.TOWARDS_SIDE + 13)])
def test_errors_have_the_gradients_of_the_dense_ones(kind, width):
    at = support(kind, 9, 7, 3)
    given_, found = inputs(at, width, torch.float64), []
    for module in (triton_sparse, reference):
        values, weight, constant = (given_[name].clone().requires_grad_() for name in ("values", "weight", "centre"))
        missed, error = module.reconstruct(values, weight, constant, given_["x"], at)
        found.append([missed, error, *torch.autograd.grad(missed.sin().sum() + 3 * error, [values, weight, constant])])
    for one, expected in zip(*found, strict=True):
        torch.testing.assert_close(one, expected)


@pytest.mark.parametrize("normaliser", [Unscaled(), Scale()])
@pytest.mark.parametrize(
    ("n", "width", "dtype"), [(0, 3, torch.float32), (5, 300, torch.float32), (5, 3, torch.float64)]
)
def test_states_in_units_are_those_of_the_normaliser(normaliser, n, width, dtype, monkeypatch):
    monkeypatch.setattr(triton_rows, "SIDE", 128)
    normaliser.to(DEVICE)
    if isinstance(normaliser, Scale):
        normaliser.factor.fill_(0.7)
    x, centre = torch.randn(n, width, dtype=dtype, device=DEVICE), torch.randn(width, device=DEVICE)
    inputs, centred = triton_rows.in_units(normaliser, x, centre)
    torch.testing.assert_close(inputs, normaliser(x))
    torch.testing.assert_close(centred, normaliser(x) - centre, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("kind", ["row", "ragged"])
def test_where_torch_may_round_operands_results_are_as_exact_as_tf32(kind):
    at = support(kind, 40, 30, 6)
    given_, found = inputs(at, 140, torch.float32), []
    given_["weight"] *= torch.logspace(-6, 6, 30, device=DEVICE).unsqueeze(1)
    given_["x"] *= torch.logspace(-3, 3, 40, device=DEVICE).unsqueeze(1)
    torch.set_float32_matmul_precision("high")
    try:
        for module, dtype in ((triton_sparse, torch.float32), (reference, torch.float64)):
            leaves = {
                name: given_[name].to(dtype, copy=True).requires_grad_() for name in ("values", "weight", "centre")
            }
            missed, error = module.reconstruct(*leaves.values(), given_["x"].to(dtype), at)
            bias, x = given_["bias"].to(dtype).requires_grad_(), given_["x"].to(dtype)
            u = module.preactivations(x, 0.0, leaves["weight"], bias, given_["values"].to(dtype), at)
            gradients = torch.autograd.grad(error + (u * leaves["values"]).sum(), [*leaves.values(), bias])
            found.append([missed, error, *gradients])
    finally:
        torch.set_float32_matmul_precision("highest")
    for one, expected in zip(*found, strict=True):
        size = expected.abs().amax(-1, keepdim=True) if expected.ndim == 2 else expected.abs().amax()
        assert bool(((one.double() - expected).abs() <= 2.0**-8 * size).all())
        assert one.numel() < 1000 or not torch.equal(one, expected.float())


def test_gradients_pass_the_finite_difference_check():
    at = support("ragged", 5, 6, 3)
    given_ = inputs(at, 4, torch.float64)
    values, weight = (given_[name].requires_grad_() for name in ("values", "weight"))
    assert torch.autograd.gradcheck(lambda v, w: triton_sparse.decode(v, w, at), (values, weight))


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.bfloat16, 1e-2)])
def test_narrow_numbers_are_added_in_wide_ones(dtype, tolerance):
    """What is lost is the rounding of inputs and results to their dtype, not that of 400 partial sums."""
    at = support("row", 400, 4, 3)
    given_ = inputs(at, 8, dtype)
    exact = {name: value.double() for name, value in given_.items()}
    values, weight = given_["values"].requires_grad_(), given_["weight"].requires_grad_()
    decoded = triton_sparse.decode(values, weight, at)
    decoded.backward(given_["x"])
    expected = reference.decode(exact["values"].requires_grad_(), exact["weight"].requires_grad_(), at)
    expected.backward(exact["x"])
    assert (decoded.dtype, weight.grad.dtype, values.grad.dtype) == (dtype, dtype, dtype)
    for found, right in [(decoded, expected), (weight.grad, exact["weight"].grad), (values.grad, exact["values"].grad)]:
        assert (found.double() - right).abs().max() <= tolerance * right.abs().max()


def test_half_precision_weights_take_single_precision_values():
    at = support("row", 6, 9, 3)
    values = torch.randn(18, device=DEVICE, requires_grad=True)
    weight = torch.randn(9, 5, device=DEVICE).bfloat16().requires_grad_()
    decoded = triton_sparse.decode(values, weight, at)
    decoded.sum().backward()
    assert (decoded.dtype, values.grad.dtype, weight.grad.dtype) == (torch.float32, torch.float32, torch.bfloat16)
    torch.testing.assert_close(decoded, reference.decode(values, weight.float(), at))


def test_no_active_latent_at_all_decodes_to_zero_with_zero_gradients():
    at = Support.from_mask(torch.zeros(3, 4, dtype=torch.bool, device=DEVICE))
    given_ = inputs(at, 5, torch.float32)
    for found, expected in zip(results(triton_sparse, at, given_), results(reference, at, given_), strict=True):
        assert torch.equal(found, expected)


def test_a_frozen_matrix_gets_no_gradient():
    at = support("row", 3, 4, 2)
    values, weight = torch.randn(6, device=DEVICE, requires_grad=True), torch.randn(4, 5, device=DEVICE)
    triton_sparse.decode(values, weight, at).sum().backward()
    assert values.grad is not None and weight.grad is None


def test_a_gpu_gets_these_kernels_and_a_cpu_does_not():
    assert dispatch.kernels_for("cuda").decode is triton_sparse.decode
    assert dispatch.kernels_for(torch.device("cuda", 1)).name == "triton"
    assert dispatch.kernels_for("cpu").decode is not triton_sparse.decode
