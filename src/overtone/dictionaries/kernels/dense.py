"""Dense products for steps whose latents are largely active: by the compiled kernel or by oneDNN where they serve.

On processors that are not Intel's, torch's default library for float32 products is 1.3 to 2.2 times slower than oneDNN,
which torch carries too (measured: 330 against 150 ms for 4096 x 512 times 512 x 8192 on one core of an AMD EPYC).
Products with many rows are made in blocks, into memory that is used again: fresh pages cost as much as the product.
Where a batch goes through block by block, gradients of weights are added up where they lie (`adding_up`).
"""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from overtone.dictionaries.kernels import memory
from overtone.dictionaries.kernels.dispatch import kernels_for

BLOCK = 2**22  # numbers of a product at a time; more of them leave the cache
_onednn = getattr(torch.ops.mkldnn, "_linear_pointwise", None) if torch.backends.mkldnn.is_available() else None


@dataclass(eq=False)
class Sums:
    """Whether backward passes may add to the gradients of weights by themselves."""

    open: bool = False


_SUMS: ContextVar[Sums | None] = ContextVar("gradients that are added up", default=None)


@contextmanager
def adding_up() -> Iterator[Sums]:
    """Products made inside add what they give a weight to its `grad`, where it has one, during backward passes for
    which the yielded object is open; autograd sees nothing of it."""
    sums = Sums()
    token = _SUMS.set(sums)
    try:
        yield sums
    finally:
        _SUMS.reset(token)


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
    kernel = kernels_for(a.device).product
    if kernel is not None and kernel.serves(a, b):
        out = memory.take(len(a), len(b))
        kernel(a, b, out, add=False)
        return out
    if _onednn is None or not _served(a, b):
        return a @ b.T
    out, size = memory.take(len(a), len(b)), max(1, BLOCK // len(b))
    for part, into in zip(a.split(size), out.split(size), strict=True):
        into.copy_(_onednn(part, b, None, "none", [], ""))
    return out


def add_product(a: Tensor, b: Tensor, out: Tensor) -> None:
    """out += `product` of a and b; rows of `out` are contiguous."""
    kernel = kernels_for(a.device).product
    if kernel is not None and kernel.serves(a, b, out):
        kernel(a, b, out, add=True)
    else:
        out.add_(product(a, b))


class _PreActivations(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, centred: Tensor, centre: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        ctx.save_for_backward(centred)
        ctx.weight, ctx.sums = weight, _SUMS.get()
        return product(centred, weight).add_(bias)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        (centred,), weight = ctx.saved_tensors, ctx.weight
        of_bias = grad.sum(0)
        of_centre = -(of_bias @ weight) if ctx.needs_input_grad[1] else None
        return None, of_centre, _of_weight(ctx, 2, grad, centred), of_bias


class _Decode(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, values: Tensor, weight: Tensor) -> Tensor:
        ctx.save_for_backward(values)
        ctx.weight, ctx.sums = weight, _SUMS.get()
        return product(values, weight.T)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        (values,), grad = ctx.saved_tensors, grad.contiguous()
        of_values = product(grad, ctx.weight) if ctx.needs_input_grad[0] else None
        return of_values, _of_weight(ctx, 1, values, grad)


def _of_weight(ctx: Any, place: int, by_latent: Tensor, states: Tensor) -> Tensor | None:
    """(latents, width) gradient of a weight that is input `place`, None where it has none or was added to already."""
    if not ctx.needs_input_grad[place]:
        return None
    if ctx.sums is None or not ctx.sums.open or ctx.weight.grad is None:
        return product(by_latent.T, states.T)
    add_product(by_latent.T, states.T, ctx.weight.grad)
    return None


def _served(*tensors: Tensor) -> bool:
    return all(t.dtype == torch.float32 and t.device.type == "cpu" and t.numel() for t in tensors)
