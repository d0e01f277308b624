"""Steps with pseudo-gradients: what a learned threshold needs, since a step function has no useful derivative.

K(t) = 1[|t| < 1/2] is a window, `window` its width, in the units of the pre-activations. Both functions are
evaluated on pre-activations: half of the window lies below the threshold, where values are 0. Source: Rajamanoharan et
al. 2024, arXiv 2407.14435.
"""

from torch import Tensor


def jump(u: Tensor, theta: Tensor, window: Tensor | float) -> Tensor:
    """u where u > theta, else 0. Derivatives: 1[u > theta] to u; -(theta / window) K((u - theta) / window) to
    theta, which has a shape that broadcasts to that of u."""
    return u * (u > theta) - _pull(u, theta, window) * theta.detach()


def is_above(u: Tensor, theta: Tensor, window: Tensor | float) -> Tensor:
    """1 where u > theta, else 0, floating. Derivatives: none to u; -(1 / window) K((u - theta) / window) to
    theta."""
    u = u.detach()
    return (u > theta).to(u.dtype) - _pull(u, theta, window)


def _pull(u: Tensor, theta: Tensor, window: Tensor | float) -> Tensor:
    """Zero, with derivative K((u - theta) / window) / window to theta."""
    level = theta.detach()
    inside = (u.detach() - level).abs() < window / 2
    return inside / window * (theta - level)
