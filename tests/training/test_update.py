"""What follows the gradients: torch's way is compared with what it says, the compiled one with torch's."""

import os
from importlib.util import find_spec

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from overtone.dictionaries.kernels.compiler import BuildError
from overtone.dictionaries.kernels.native import MACHINE, Native
from overtone.dictionaries.kernels.native_update import NativeUpdate
from overtone.dictionaries.kernels.update import Moments, Update
from overtone.training.adam import Adam

BETAS = (0.9, 0.999)


@pytest.fixture(scope="module", params=["machine", "portable", "triton"])
def native(request):
    """In C, or in Triton's interpreter."""
    if request.param == "triton":
        if find_spec("triton") is None or os.environ["TRITON_INTERPRET"] != "1":
            pytest.skip("no interpreter of Triton here")
        from interpreter import quicken
        from overtone.dictionaries.kernels.triton_update import TritonUpdate

        quicken()
        return TritonUpdate()
    try:
        return NativeUpdate(Native(*[MACHINE][: request.param == "machine"]).library)
    except BuildError as error:
        pytest.skip(f"no compiled kernels here: {error}")


def unit(rows: torch.Tensor) -> torch.Tensor:
    return rows / rows.norm(dim=1, keepdim=True)


def moments(n: int, width: int, seed: int = 0) -> list[Moments]:
    """Rows of length one, a matrix and a vector, with moments as after some updates."""
    draw = torch.Generator().manual_seed(seed)
    shapes = [(n, width), (n, width), (n,)]
    normal = [[torch.randn(shape, generator=draw) for _ in range(3)] for shape in shapes]
    found = [Moments(p, g, 0.1 * m, m.square(), torch.tensor(3.0)) for p, g, m in normal]
    found[0].parameter, found[0].unit = unit(found[0].parameter), True
    return found


def stepped(update: Update, everything: list[Moments], lr: float, scale: torch.Tensor | None) -> list[torch.Tensor]:
    """The norm, then parameters and moments after one update."""
    norm = update.norm(everything)
    update.adam(everything, lr, BETAS, scale)
    return [norm.double(), *(t for one in everything for t in (one.parameter, one.mean, one.square, one.step))]


@settings(max_examples=15, deadline=None)
@given(n=st.integers(1, 150), width=st.integers(1, 90), scale=st.sampled_from([None, 0.25]), lr=st.floats(1e-4, 1.0))
def test_the_compiled_update_is_torch_s(native, n, width, scale, lr):
    factor = None if scale is None else torch.tensor(scale)
    found, expected = (stepped(update, moments(n, width), lr, factor) for update in (native, Update()))
    for one, right in zip(found, expected, strict=True):
        torch.testing.assert_close(one, right, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kind", ["torch", "compiled"])
def test_what_lies_along_unit_rows_is_left_out_and_they_stay_at_length_one(kind, native):
    update, (one, *_) = Update() if kind == "torch" else native, moments(40, 30)
    rows, gradient = one.parameter.clone().double(), one.gradient.clone().double()
    across = gradient - (gradient * rows).sum(1, keepdim=True) * rows
    one.mean.zero_(), one.square.zero_(), one.step.zero_()
    assert float(update.norm([one])) == pytest.approx(float(across.norm()), rel=1e-5)
    update.adam([one], 1e-2, BETAS, None)
    # The first update of Adam goes by the gradient's sign.
    torch.testing.assert_close(one.parameter.double(), unit(rows - 1e-2 * across.sign()), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(one.mean.double(), (1 - BETAS[0]) * across, rtol=1e-4, atol=1e-6)
    one.parameter.mul_(3)
    update.to_length_one(one.parameter)
    torch.testing.assert_close(one.parameter.norm(dim=1), torch.ones(40))


def test_what_the_library_cannot_take_is_left_to_torch(native):
    mixed = [moments(9, 5) for _ in range(2)]
    for everything in mixed:
        one = everything[1]
        one.parameter, one.gradient, one.mean, one.square = (
            t.double() for t in (one.parameter, one.gradient, one.mean, one.square)
        )
    found, expected = stepped(native, mixed[0], 0.1, None), stepped(Update(), mixed[1], 0.1, None)
    for one, right in zip(found[1:], expected[1:], strict=True):
        torch.testing.assert_close(one, right, rtol=1e-4, atol=1e-5)
    assert float(found[0]) == pytest.approx(float(expected[0]), rel=1e-5)


def test_long_gradients_are_shortened_and_short_ones_are_not():
    for size, factor in ((0.5, 1.0), (20.0, 1 / 20)):
        p = torch.zeros(2, requires_grad=True)
        adam = Adam({"p": p}, clip=1.0)
        p.grad = torch.tensor([0.6, 0.8]) * size
        adam.update(1e-3)
        torch.testing.assert_close(adam.means["p"], 0.1 * factor * size * torch.tensor([0.6, 0.8]))
        assert p.grad is None


def test_a_parameter_without_a_gradient_stays_and_an_update_of_nothing_is_none():
    p, q = torch.ones(3, requires_grad=True), torch.ones(3, requires_grad=True)
    adam = Adam({"p": p, "q": q}, clip=1.0)
    adam.update(0.1)
    assert torch.equal(p, torch.ones(3))
    p.grad = torch.ones(3)
    adam.update(0.1)
    assert torch.equal(q, torch.ones(3)) and bool((p < 1).all())
