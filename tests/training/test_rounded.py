"""Products in few bits are bounds of the true ones, and known where they cannot be had."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from overtone.training.kernels.dispatch import KINDS
from overtone.training.kernels.rounded import GRAIN, Rounded
from overtone.training.kernels.rounded_int8 import INT8, Int8

EACH = pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)


def usable(kind):
    if kind is INT8 and not kind.is_fast():
        pytest.skip("no int8 products in torch here")
    return kind


def numbers(rows, width, latents, extreme):
    generator = torch.Generator().manual_seed(rows + 31 * width + 977 * latents)
    x, weight = (torch.randn(n, width, generator=generator) for n in (rows, latents))
    x, weight = (
        x * torch.rand(rows, 1, generator=generator).exp2(),
        weight * torch.rand(latents, 1, generator=generator).exp(),
    )
    x[:, 0] *= extreme
    weight[:, -1] *= extreme
    x[::5], weight[::7] = 0, 0
    return x, weight, *(torch.randn(2, latents, generator=generator) * extreme)


@EACH
@pytest.mark.parametrize("two_sided", [False, True])
@settings(max_examples=60, deadline=None)
@given(
    rows=st.integers(1, 40), width=st.integers(1, 80), latents=st.integers(1, 60),
    extreme=st.sampled_from([1e-6, 1.0, 300.0, 1e6]), more=st.sampled_from([0, 1, 2]),
)  # fmt: skip
def test_no_product_exceeds_its_bound_nor_its_bound_less_what_is_spare(
    kind, two_sided, rows, width, latents, extreme, more
):
    x, weight, bias, shift = numbers(rows, width, latents, extreme)
    rounded = Rounded.of(usable(kind), weight, x, bias if more else None, shift if more > 1 else None)
    short = rounded.short(x)
    bounds, spare, _ = rounded.at_most(short, two_sided)
    truth = x.double() @ weight.double().T + (bias.double() if more else 0) - (shift.double() if more > 1 else 0)
    truth = (truth.abs() if two_sided else truth) / short.steps.double().unsqueeze(1)
    least = bounds.double() + (2 if two_sided else 1) * GRAIN * bounds.double().abs()
    assert bool((truth <= least + 1e-30).all())
    assert bool((truth + spare.double().unsqueeze(1) <= (least + 1e-30)).all())
    if more:
        return
    magnitudes = rounded.magnitudes(short).double() * short.steps.double().unsqueeze(1)
    truth = truth.abs() * short.steps.double().unsqueeze(1)
    wrong = rounded.wrong(short).double().unsqueeze(1)
    assert bool(((magnitudes - truth).abs() <= wrong + GRAIN * magnitudes + 1e-30).all())


@EACH
def test_bounds_are_near_and_extreme_coordinates_do_not_take_all_digits(kind):
    for extreme in (1.0, 1e4):
        x, weight, bias, _ = numbers(200, 96, 500, 1.0)
        x[:, 3] *= extreme
        weight[:, 3] /= extreme
        rounded = Rounded.of(usable(kind), weight, x, bias)
        bounds = rounded.at_most(rounded.short(x), False)[0]
        truth = x @ weight.T + bias
        over = (bounds.float() * rounded.short(x).steps.unsqueeze(1) - truth)[1:5]
        sizes = x.norm(dim=1, keepdim=True)[1:5] * weight.norm(dim=1)
        assert float((over / (sizes + 1)).mean()) < (0.08 if kind is INT8 else 0.02)


def test_int8_is_not_used_where_torch_or_the_processor_cannot(monkeypatch):
    class Missing(Int8):
        def products(self, *arguments):
            raise RuntimeError("no such operator")

    class Wrong(Int8):
        def products(self, *arguments):
            return super().products(*arguments) + 1

    assert not Missing().is_fast()
    assert not Wrong().is_fast()
    monkeypatch.setattr(torch.cpu, "_is_vnni_supported", lambda: False, raising=False)
    assert not INT8.is_fast()


@EACH
@pytest.mark.parametrize("bad", [torch.nan, torch.inf])
def test_what_is_not_finite_has_no_bounds(kind, bad):
    x, weight, bias, _ = numbers(6, 9, 20, 1.0)
    rounded = Rounded.of(usable(kind), weight, x, bias)
    x[1, 2] = weight[2, 3] = bias[4] = bad
    assert rounded.short(x) is None
    assert Rounded.of(kind, weight, x) is None
    assert Rounded.of(kind, torch.ones(20, 9), x.nan_to_num(), bias) is None
