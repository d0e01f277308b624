"""The kernels in plain torch: work and memory proportional to the number of active latents.

Everything is a gather-and-sum over bags of rows, for which torch has fast CPU and GPU code (`embedding_bag`): a decode
sums decoder rows over the latents of each row; a weight gradient sums states over the rows of each latent, after one
sort of the places by latent that decoder and encoder share. No gradient is approximated or dropped.
"""

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn.functional import embedding_bag

from overtone.dictionaries.codes import Support


def preactivations(
    centred: Tensor, centre: Tensor | float, weight: Tensor, bias: Tensor, u: Tensor, at: Support
) -> Tensor:
    """(n,) entries of (x - centre) weight^T + bias at a support, where `centred` (rows, width) = x - centre.

    u: (n,) these values as selection computed them (without gradients); they are passed through, and the gradient is
    that of the dense product for weight, bias and centre. x gets none: states are data.
    """
    centre = centre if isinstance(centre, Tensor) else centred.new_zeros(())
    return _PreActivations.apply(centred, centre, weight, bias, u, at)


def decode(values: Tensor, weight: Tensor, at: Support) -> Tensor:
    """(rows, width) product of the sparse matrix that holds `values` at a support with `weight` (latents, width)."""
    return _Decode.apply(values, weight, at)


class _PreActivations(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, centred: Tensor, centre: Tensor, weight: Tensor, bias: Tensor, u: Tensor, at: Support
    ) -> Tensor:
        ctx.save_for_backward(centred, weight)
        ctx.at = at
        return u.view_as(u)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        centred, weight = ctx.saved_tensors
        of_bias = torch.zeros_like(weight[:, 0]).index_add_(0, ctx.at.latents, grad)
        of_weight = sum_by_latent(grad, centred, ctx.at) if ctx.needs_input_grad[2] else None
        of_centre = -(of_bias @ weight) if ctx.needs_input_grad[1] else None
        return None, of_centre, of_weight, of_bias, None, None


class _Decode(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, values: Tensor, weight: Tensor, at: Support) -> Tensor:
        ctx.save_for_backward(values, weight)
        ctx.at = at
        return embedding_bag(at.latents, weight, at.row_starts, per_sample_weights=values, mode="sum")

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        values, weight = ctx.saved_tensors
        grad = grad.contiguous()
        of_values = products(grad, weight, ctx.at) if ctx.needs_input_grad[0] else None
        of_weight = sum_by_latent(values, grad, ctx.at) if ctx.needs_input_grad[1] else None
        return of_values, of_weight, None


def sum_by_latent(values: Tensor, states: Tensor, at: Support) -> Tensor:
    """(latents, width): for each latent, the sum over its places of value x state of the place's row."""
    order, rows, starts = at.by_latent
    return embedding_bag(rows, states, starts, per_sample_weights=values.index_select(0, order), mode="sum")


def products(states: Tensor, weight: Tensor, at: Support) -> Tensor:
    """(n,) inner products of the state of each place's row with the weight row of its latent."""
    # The operator that torch differentiates embedding_bag's weights with is exactly this product, without gathering
    # rows.
    backward = torch.ops.aten._embedding_bag_per_sample_weights_backward
    return backward(states, weight, at.latents, at.row_starts, at.rows, 0, -1)
