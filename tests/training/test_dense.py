"""Dense products agree with torch's own, values and gradients, in both precisions."""

import pytest
import torch
from torch.nn.functional import linear

from overtone.dictionaries.kernels import dense


def leaves(dtype, rows=70, latents=300, width=17):
    generator = torch.Generator().manual_seed(0)
    shapes = (("centre", (width,)), ("weight", (latents, width)), ("bias", (latents,)), ("out", (latents, width)))
    made = {name: torch.randn(shape, generator=generator, dtype=dtype).requires_grad_() for name, shape in shapes}
    return torch.randn(rows, width, generator=generator, dtype=dtype), made


def loss_and_gradients(x, made, *, plain):
    if plain:
        u = linear(x - made["centre"], made["weight"], made["bias"])
        x_hat = u.relu() @ made["out"]
    else:
        centred = (x - made["centre"]).detach()
        u = dense.preactivations(centred, made["centre"], made["weight"], made["bias"])
        x_hat = dense.decode(u.relu(), made["out"])
    loss = (x_hat - x).square().mean() + u.sin().mean()
    return [u, x_hat, *torch.autograd.grad(loss, list(made.values()))]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(("kernels", "block"), [("auto", 2**22), ("plain", 2**22), ("plain", 900), ("plain", 7)])
def test_values_and_gradients(dtype, kernels, block, monkeypatch):
    monkeypatch.setenv("OVERTONE_KERNELS", kernels)
    monkeypatch.setattr(dense, "BLOCK", block)
    x, made = leaves(dtype)
    found, expected = (loss_and_gradients(x, made, plain=plain) for plain in (False, True))
    for a, b in zip(found, expected, strict=True):
        size = float(b.detach().abs().amax())  # sums whose terms cancel are as exact as the terms are
        torch.testing.assert_close(a, b, rtol=0, atol=8 * torch.finfo(dtype).eps * size)


def test_a_number_for_the_centre_and_no_rows_are_served():
    x, made = leaves(torch.float32)
    u = dense.preactivations(x[:0], 0.0, made["weight"], made["bias"])
    assert u.shape == (0, 300)
    u.sum().backward()
    assert made["weight"].grad.abs().sum() == 0
