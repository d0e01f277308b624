"""The sparse kernels compute what their dense references compute, values and gradients alike; torch's in float64, the
compiled ones in float32 against a reference in float64."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from overtone.dictionaries.codes import Support
from overtone.dictionaries.kernels import memory, reference, sparse
from overtone.dictionaries.kernels.compiler import BuildError
from overtone.dictionaries.kernels.native import MACHINE, Native


def support(kind: str, rows: int, latents: int, k: int) -> Support:
    """k places in each row, or a ragged number of them, chosen at random."""
    scores = torch.rand(rows, latents)
    if kind == "row":
        return Support.from_indices(scores.topk(k, dim=1).indices, latents)
    return Support.from_mask(scores > scores.flatten().sort().values[-min(k * rows, scores.numel())])


def inputs(at: Support, width: int) -> dict[str, torch.Tensor]:
    """Float64 leaves of every kernel."""
    shapes = {"centre": (width,), "weight": (at.n_latents, width), "bias": (at.n_latents,), "values": (len(at.rows),)}
    return {name: torch.randn(shape, dtype=torch.float64, requires_grad=True) for name, shape in shapes.items()}


def results(module, at: Support, leaves: dict[str, torch.Tensor], x: torch.Tensor) -> list[torch.Tensor]:
    """Both kernels' results and the gradients of a smooth function of them."""
    centred = (x - leaves["centre"]).detach()
    true_u = at.take(centred @ leaves["weight"].detach().T + leaves["bias"].detach())
    u = module.preactivations(centred, leaves["centre"], leaves["weight"], leaves["bias"], true_u, at)
    decoded = module.decode(leaves["values"] * u, leaves["weight"], at)
    loss = (
        decoded * torch.cos(torch.arange(decoded.numel(), dtype=decoded.dtype).view_as(decoded))
    ).sum() + u.sin().sum()
    return [u, decoded, *torch.autograd.grad(loss, list(leaves.values()))]


@pytest.mark.parametrize("kind", ["row", "ragged"])
@settings(max_examples=25, deadline=None)
@given(rows=st.integers(1, 7), width=st.integers(1, 5), latents=st.integers(1, 9), k=st.integers(1, 9))
def test_values_and_gradients_equal_the_dense_ones(kind, rows, width, latents, k):
    at = support(kind, rows, latents, min(k, latents))
    leaves, x = inputs(at, width), torch.randn(rows, width, dtype=torch.float64)
    for found, expected in zip(results(sparse, at, leaves, x), results(reference, at, leaves, x), strict=True):
        torch.testing.assert_close(found, expected)


@pytest.fixture(scope="module", params=["machine", "portable"])
def compiled(request):
    try:
        return Native(*[MACHINE][: request.param == "machine"])
    except BuildError as error:
        pytest.skip(f"no compiled kernels here: {error}")


@pytest.mark.parametrize("kind", ["row", "ragged"])
@settings(max_examples=25, deadline=None)
@given(rows=st.integers(1, 7), width=st.integers(1, 300), latents=st.integers(1, 70), k=st.integers(1, 9))
def test_compiled_values_and_gradients_equal_the_dense_ones(compiled, kind, rows, width, latents, k):
    at = support(kind, rows, latents, min(k, latents))
    leaves, x = inputs(at, width), torch.randn(rows, width, dtype=torch.float64)
    single = {name: leaf.detach().float().requires_grad_() for name, leaf in leaves.items()}
    expected = results(reference, at, leaves, x)
    for found, right in zip(results(compiled, at, single, x.float()), expected, strict=True):
        torch.testing.assert_close(found.double(), right, rtol=1e-4, atol=1e-4 * width**0.5)


def reconstructed(module, at: Support, leaves: dict[str, torch.Tensor], x: torch.Tensor, used: str, per_row: bool):
    """What a reconstruction misses, its squared error, and the gradients of a function of what is `used` of them."""
    constant = leaves["constants"] if per_row else leaves["centre"]
    missed, error = module.reconstruct(leaves["values"], leaves["weight"], constant, x, at)
    loss = {"error": 3 * error, "missed": missed.sin().sum(), "both": missed.sin().sum() - 2 * error}[used]
    return [missed, error, *torch.autograd.grad(loss, [leaves["values"], leaves["weight"], constant])]


def with_constants(at: Support, width: int) -> dict[str, torch.Tensor]:
    return {**inputs(at, width), "constants": torch.randn(at.n_rows, width, dtype=torch.float64, requires_grad=True)}


USES = [("error", False), ("error", True), ("missed", False), ("both", False), ("both", True)]


@pytest.mark.parametrize(("used", "per_row"), USES)
@settings(max_examples=10, deadline=None)
@given(rows=st.integers(1, 7), width=st.integers(1, 70), latents=st.integers(1, 9), k=st.integers(1, 9))
def test_errors_have_the_gradients_of_the_dense_ones(used, per_row, rows, width, latents, k):
    at = support("ragged", rows, latents, min(k, latents))
    leaves, x = with_constants(at, width), torch.randn(rows, width, dtype=torch.float64)
    found = reconstructed(sparse, at, leaves, x, used, per_row)
    for one, expected in zip(found, reconstructed(reference, at, leaves, x, used, per_row), strict=True):
        torch.testing.assert_close(one, expected)


@pytest.mark.parametrize(("used", "per_row"), USES)
@settings(max_examples=10, deadline=None)
@given(rows=st.integers(1, 7), width=st.integers(1, 300), latents=st.integers(1, 70), k=st.integers(1, 9))
def test_compiled_errors_have_the_gradients_of_the_dense_ones(compiled, used, per_row, rows, width, latents, k):
    at = support("ragged", rows, latents, min(k, latents))
    leaves, x = with_constants(at, width), torch.randn(rows, width, dtype=torch.float64)
    single = {name: leaf.detach().float().requires_grad_() for name, leaf in leaves.items()}
    found = reconstructed(compiled, at, single, x.float(), used, per_row)
    for one, expected in zip(found, reconstructed(reference, at, leaves, x, used, per_row), strict=True):
        torch.testing.assert_close(one.double(), expected, rtol=1e-4, atol=1e-4 * width)


def test_an_error_alone_scales_no_matrix_and_a_frozen_matrix_gets_no_gradient():
    at = support("row", 5, 6, 2)
    leaves = {name: leaf.detach() for name, leaf in inputs(at, 4).items()}
    values, x = leaves["values"].requires_grad_(), torch.randn(5, 4, dtype=torch.float64)
    asked = []

    class Watched(sparse.Torch):
        def products(self, states, weight, at):
            asked.append(states)
            return super().products(states, weight, at)

    missed, error = sparse.differentiable(Watched()).reconstruct(values, leaves["weight"], leaves["centre"], x, at)
    error.backward()
    assert leaves["weight"].grad is None and torch.equal(asked[0], missed.detach())
    torch.testing.assert_close(values.grad, 2 * at.take(missed.detach() @ leaves["weight"].T))


@pytest.mark.parametrize("size", [300, 1500], ids=["small pages", "huge pages"])
def test_memory_in_use_is_never_handed_out_again(size):
    memory.release()
    first = memory.take(size, size)
    kept = first.view(-1)[:5]
    kept.fill_(7)
    address = first.data_ptr()
    del first
    assert memory.take(size, size).data_ptr() != address, "a view still refers to it"
    assert kept.tolist() == [7] * 5
    del kept
    again = memory.take(size, size)
    assert again.data_ptr() == address
    memory.release()
    assert float(again.fill_(3).sum()) == 3 * size**2, "what is still referred to stays"


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("shape", [(800, 800), (3,), ()], ids=str)
def test_memory_that_is_kept_for_long_is_like_a_tensor_and_its_own(shape, dtype):
    tensor = torch.ones(shape, dtype=dtype)
    found = memory.like(tensor).zero_()
    memory.release()
    others = [memory.take(*shape).fill_(2), memory.like(tensor).fill_(3)]
    assert (found.shape, found.dtype, found.is_contiguous()) == (tensor.shape, dtype, True)
    assert not found.any() and bool((tensor == 1).all()) and all(bool(other.all()) for other in others)


def test_memory_is_had_without_huge_pages_too(monkeypatch):
    monkeypatch.delattr(memory.mmap, "MADV_HUGEPAGE", raising=False)
    memory.release()
    assert memory.take(1500, 1500).fill_(1).sum() == 1500**2
    memory.release()


def test_compiled_gradients_of_two_uses_of_a_matrix_add_up(compiled):
    at = support("row", 40, 200, 3)
    values, weight = torch.rand(120), torch.randn(200, 400)
    found, expected = weight.clone().requires_grad_(), weight.clone().requires_grad_()
    for _ in range(2):  # the second round finds memory that the first has used
        for module, matrix in ((compiled, found), (sparse, expected)):
            matrix.grad = None
            (module.decode(values, matrix, at).square().sum() + module.decode(-2 * values, matrix, at).sum()).backward()
        torch.testing.assert_close(found.grad, expected.grad)


def test_rows_without_any_active_latent_decode_to_zero():
    at = Support.from_mask(torch.tensor([[False, False], [True, False]]))
    decoded = sparse.decode(torch.tensor([2.0]), torch.eye(2), at)
    assert decoded.tolist() == [[0.0, 0.0], [2.0, 0.0]]


def test_a_frozen_matrix_gets_no_gradient():
    at = support("row", 3, 4, 2)
    values, weight = torch.randn(6, requires_grad=True), torch.randn(4, 5)
    sparse.decode(values, weight, at).sum().backward()
    assert values.grad is not None and weight.grad is None
