"""Steps with pseudo-gradients: what a learned threshold needs, since a step function has no useful derivative.

K(t) = 1[|t| < 1/2] is a window, `window` its width, in the units of the pre-activations. Both functions are
evaluated on pre-activations: half of the window lies below the threshold, where values are 0. Source: Rajamanoharan et
al. 2024, arXiv 2407.14435.
"""

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable


def jump(u: Tensor, theta: Tensor, window: Tensor | float) -> Tensor:
    """u where u > theta, else 0. Derivatives: 1[u > theta] to u; -(theta / window) K((u - theta) / window) to
    theta, which has a shape that broadcasts to that of u."""
    return _Jump.apply(u, theta, window)


def is_above(u: Tensor, theta: Tensor, window: Tensor | float) -> Tensor:
    """1 where u > theta, else 0, floating. Derivatives: none to u; -(1 / window) K((u - theta) / window) to
    theta."""
    return _IsAbove.apply(u.detach(), theta, window)


class _Jump(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, u: Tensor, theta: Tensor, window: Tensor | float) -> Tensor:
        ctx.save_for_backward(u, theta)
        ctx.window = window
        return _step(u, theta).mul_(u)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        u, theta = ctx.saved_tensors
        of_u = _step(u, theta).mul_(grad) if ctx.needs_input_grad[0] else None
        of_theta = _pulled(ctx, u, theta, grad, theta) if ctx.needs_input_grad[1] else None
        return of_u, of_theta, None


class _IsAbove(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, u: Tensor, theta: Tensor, window: Tensor | float) -> Tensor:
        ctx.save_for_backward(u, theta)
        ctx.window = window
        return _step(u, theta)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        u, theta = ctx.saved_tensors
        return None, _pulled(ctx, u, theta, grad, 1.0) if ctx.needs_input_grad[1] else None, None


# On large matrices signs of differences are several times faster than comparisons, whose results are bytes, and no less
# exact: a difference of two floats has the right sign.
def _step(u: Tensor, theta: Tensor) -> Tensor:
    """1 where u > theta, else 0, in the dtype of u."""
    return (u - theta).sign_().clamp_(min=0)


def _pulled(ctx: Any, u: Tensor, theta: Tensor, grad: Tensor, factor: Tensor | float) -> Tensor:
    """The gradient of theta: -(factor / window) K((u - theta) / window) grad, summed to the shape of theta."""
    inside = (u - theta).abs_().sub_(ctx.window / 2).sign_().clamp_(max=0)  # -K
    return inside.mul_(grad).sum_to_size(theta.shape) * factor / ctx.window
