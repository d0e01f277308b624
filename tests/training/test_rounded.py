"""Products in few bits are bounds of the true ones, and known where they cannot be had."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from overtone.dictionaries.kernels.dispatch import KINDS
from overtone.dictionaries.kernels.rounded import GRAIN, Rounded
from overtone.dictionaries.kernels.rounded_int8 import INT8, Int8

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


def gaussian(width, extreme):
    generator = torch.Generator().manual_seed(width)
    x, weight = torch.randn(200, width, generator=generator), torch.randn(500, width, generator=generator)
    x[:, 3] *= extreme
    weight[:, 3] /= extreme
    return x, weight, torch.randn(500, generator=generator)


@EACH
@pytest.mark.parametrize("width", [32, 96, 512, 2048])
def test_bounds_are_near_and_extreme_coordinates_do_not_take_all_digits(kind, width):
    for extreme in (1.0, 1e4):
        x, weight, bias = gaussian(width, extreme)
        rounded = Rounded.of(usable(kind), weight, x, bias)
        short = rounded.short(x)
        over = rounded.at_most(short, False)[0].float() * short.steps.unsqueeze(1) - (x @ weight.T + bias)
        sizes = x.norm(dim=1, keepdim=True) * weight.norm(dim=1)
        assert float((over / (sizes + 1)).mean()) < (0.02 if kind is INT8 else 0.01)


def test_noise_makes_int8_bounds_of_wide_rows_nearer_than_any_that_hold_for_every_rounding():
    x, weight, _ = gaussian(2048, 1.0)
    rounded = Rounded.of(usable(INT8), weight, x)
    short = rounded.short(x)
    lost = 2048**0.5 / 12**0.5  # what nearest integers take, in steps, at right angles to nothing
    surely = (lost * weight.norm(dim=1) / rounded.steps + lost * short.length.unsqueeze(1)) * rounded.steps
    over = rounded.at_most(short, False)[0].float() - x @ weight.T / short.steps.unsqueeze(1)
    assert float(over.mean()) < 0.5 * float(surely.mean())


def test_rows_and_weights_that_are_all_rounded_the_same_way_are_bounded():
    steps = torch.arange(800).remainder(100).float()
    x = torch.stack([steps + part for part in (0.49, -0.49, 0.25, 0.5)]).index_fill_(1, torch.tensor(0), 126.5)
    weight = torch.cat([x, -x, x.flip(1)])
    truth = x.double() @ weight.double().T
    rounded = Rounded.of(usable(INT8), weight, x)
    for _ in range(20):
        short = rounded.short(x)
        bounds = rounded.at_most(short, False)[0].double()
        assert bool((truth / short.steps.unsqueeze(1) <= bounds + GRAIN * bounds.abs()).all())
        rounded = Rounded.of(INT8, weight, x)


def test_noise_is_taken_out_of_int8_products_again():
    generator = torch.Generator().manual_seed(0)
    part = torch.randint(0, 100, (400,), generator=generator) + 0.5
    part[0] = 126.5  # steps are 1, and all others are halfway between two of them
    x, weight = torch.cat([part, part]).expand(2, 800), torch.cat([part, -part]).expand(16, 800)
    of_states, of_weights = (float(part[0].square().sum()) for part in (x, weight))
    found = []
    for _ in range(300):  # products are 0
        rounded = Rounded.of(usable(INT8), weight, x)
        short = rounded.short(x)
        bounds, _, wrong = rounded.at_most(short, False)
        found.append(torch.stack([bounds.float().mean() - wrong, rounded.magnitudes(short).float().mean()]))
    product, magnitude = torch.stack(found).unbind(1)
    assert torch.allclose(product.abs(), magnitude, atol=0.02 * float(wrong))
    deviation = ((of_weights + of_states) / 12) ** 0.5
    assert 0.85 < float(product.std()) / deviation < 1.15, "noise of one of them that stays has 1.2"
    assert 9 < float(wrong) / deviation < 9.6


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
