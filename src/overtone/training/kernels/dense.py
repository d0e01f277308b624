"""Dense products for steps whose latents are largely active, with oneDNN where it serves.

On processors that are not Intel's, torch's default library for float32 products is 1.3 to 2.2 times slower than oneDNN,
which torch carries too (measured: 330 against 150 ms for 4096 x 512 times 512 x 8192 on one core of an AMD EPYC).
Products with many rows are made in blocks, into memory that is used again: fresh pages cost as much as the product.
"""

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from overtone.training.kernels import memory

BLOCK = 2**22  # numbers of a product at a time; more of them leave the cache
_onednn = getattr(torch.ops.mkldnn, "_linear_pointwise", None) if torch.backends.mkldnn.is_available() else None


def preactivations(centred: Tensor, centre: Tensor | float, weight: Tensor, bias: Tensor) -> Tensor:
    """(rows, latents) (x - centre) weight^T + bias, where `centred` (rows, width) = x - centre. Exact gradients for
    centre, weight and bias; x gets none: states are data."""
    centre = centre if isinstance(centre, Tensor) else centred.new_zeros(())
    return _PreActivations.apply(centred, centre, weight, bias)


def decode(values: Tensor, weight: Tensor) -> Tensor:
    """(rows, width) product of (rows, latents) values with weight (latents, width), both with exact gradients."""
    return _Decode.apply(values, weight)


def product(a: Tensor, b: Tensor) -> Tensor:
    """(m, n) product of a (m, k) and the transpose of b (n, k), without gradients."""
    if _onednn is None or not _served(a, b):
        return a @ b.T
    out, size = memory.take(len(a), len(b)), max(1, BLOCK // len(b))
    for part, into in zip(a.split(size), out.split(size), strict=True):
        into.copy_(_onednn(part, b, None, "none", [], ""))
    return out


class _PreActivations(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, centred: Tensor, centre: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        ctx.save_for_backward(centred, weight)
        return product(centred, weight).add_(bias)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        centred, weight = ctx.saved_tensors
        of_bias = grad.sum(0)
        of_centre = -(of_bias @ weight) if ctx.needs_input_grad[1] else None
        return None, of_centre, product(grad.T, centred.T) if ctx.needs_input_grad[2] else None, of_bias


class _Decode(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, values: Tensor, weight: Tensor) -> Tensor:
        ctx.save_for_backward(values, weight)
        return product(values, weight.T)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        values, weight = ctx.saved_tensors
        grad = grad.contiguous()
        of_values = product(grad, weight) if ctx.needs_input_grad[0] else None
        return of_values, product(values.T, grad.T) if ctx.needs_input_grad[1] else None


def _served(*tensors: Tensor) -> bool:
    return all(t.dtype == torch.float32 and t.device.type == "cpu" and t.numel() for t in tensors)
