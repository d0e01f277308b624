"""JumpReLU: the pseudo-gradient has the right size, and thresholds move in every precision."""

import torch

from overtone.dictionaries.jumps import is_above, jump
from overtone.dictionaries.presets.jump_relu import JumpReLU
from overtone.dictionaries.values import Rectified
from overtone.training.fit import fit


def slope_of_l0(u, theta, window):
    """What training believes d E[L0] / d theta to be."""
    theta = torch.tensor(theta, requires_grad=True)
    is_above(u, theta, window).mean().backward()
    return float(theta.grad)


def test_the_slope_of_the_count_is_that_of_the_true_distribution(generator):
    """u uniform on [0, 1]: E[L0] = 1 - theta has slope -1. On values after the jump half of the window is empty."""
    u = torch.rand(200_000, generator=generator)
    assert -1.1 < slope_of_l0(u, 0.5, 0.1) < -0.9
    wrong = slope_of_l0(u * (u > 0.5), 0.5, 0.1)
    assert -0.6 < wrong < -0.4, "the mistake this test is there for would be seen"


def test_the_slope_of_a_value_is_that_of_its_mean(generator):
    """E[u H(u - theta)] = (1 - theta^2) / 2 has slope -theta."""
    u = torch.rand(200_000, generator=generator)
    theta = torch.tensor(0.7, requires_grad=True)
    jump(u, theta, 0.1).mean().backward()
    assert -0.77 < float(theta.grad) < -0.63


def test_below_the_window_nothing_pulls():
    u, theta = torch.tensor([0.1, 0.46, 0.5, 0.54, 0.9]), torch.full((5,), 0.5, requires_grad=True)
    z = jump(u, theta, 0.1)
    assert torch.equal(z.detach(), torch.tensor([0.0, 0.0, 0.0, 0.54, 0.9]))
    z.sum().backward()
    assert (theta.grad != 0).tolist() == [False, True, True, True, False]


def test_the_target_variant_meets_its_target_and_the_price_variant_trades(generator):
    x = torch.randn(2000, 12, generator=generator) @ torch.randn(12, 12, generator=generator)

    def l0(**settings):
        fitted = fit(JumpReLU(48, **settings), x, n_tokens=60_000, batch_rows=250, lr=4e-3, quiet=True)
        return float(fitted.dictionary.encode(x).counts().float().mean())

    assert abs(l0(target_l0=5.0) / 5 - 1) < 0.15
    assert l0(sparsity=0.005) > 1.3 * l0(sparsity=0.05)


def test_dead_latents_are_pulled_up_to_their_threshold(generator):
    x = torch.randn(1000, 8, generator=generator)
    shares = []
    for revive in (0.0, 0.1):
        preset = JumpReLU(32, revive=revive, threshold=4.0, sparsity=0.0)
        fitted = fit(preset, x, n_tokens=60_000, batch_rows=250, quiet=True)
        shares.append(float((fitted.dictionary.encode(x).frequencies() == 0).float().mean()))
    assert shares[1] < shares[0] - 0.2


def test_thresholds_keep_their_precision_and_move_in_half_precision(generator):
    model = JumpReLU(16).build(8, generator)
    model.selection.log_theta.data.add_(1e-4)
    exact = model.selection.log_theta.detach().clone()
    half = model.bfloat16().train()
    assert half.encoder.weight.dtype == torch.bfloat16 and torch.equal(half.selection.log_theta.detach(), exact)
    x = torch.randn(200, 8, generator=generator).bfloat16()
    z = half.value({"u": x.float(), "theta": half.selection.theta[:8], "window": half.selection.window}, lambda v: v)
    z.sum().backward()
    before = half.selection.theta.detach().clone()
    half.selection.log_theta.data.sub_(1e-4 * half.selection.log_theta.grad.sign())
    assert (half.selection.theta[:8] != before[:8]).any(), "steps smaller than a half-precision digit must count"


def test_far_from_its_thresholds_it_is_a_rectifier():
    u, theta = torch.tensor([-2.0, 3.0, 0.0]), torch.full((3,), 1e-6)
    heads = {"u": u, "theta": theta, "window": torch.tensor(1e-7)}
    from overtone.dictionaries.values import Jump

    assert torch.equal(Jump()(heads, lambda v: v), Rectified()(heads, lambda v: v))
