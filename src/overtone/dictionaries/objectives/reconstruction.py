"""How much of the states' variance the reconstruction misses."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from overtone.dictionaries.kernels.sparse import squares_of
from overtone.dictionaries.objectives.base import Objective, StepView


@dataclass(frozen=True)
class Reconstruction(Objective):
    """mean over rows of ||x - x_hat||^2, divided by E||x - mean||^2 (a constant fitted before training)."""

    sliceable = True
    separable = True

    def __call__(self, step: StepView) -> Tensor:
        """The unexplained share, 0 or more."""
        return share_of(step.squared_error, step)


def unexplained(x_hat: Tensor, step: StepView) -> Tensor:
    """() the share of the variance that a reconstruction (rows, width) of the step's states misses."""
    return share_of(total_of_squares(x_hat - step.x), step)


def share_of(error: Tensor, step: StepView) -> Tensor:
    """() the share of the variance that is a squared error over all rows of the step."""
    return error / (len(step.x) * step.dictionary.spread)


def total_of_squares(missed: Tensor) -> Tensor:
    """() ||missed||^2 over all rows, with gradients."""
    return _TotalOfSquares.apply(missed)


class _TotalOfSquares(torch.autograd.Function):
    """Torch's own functions fill two matrices of rows x width on the way there and back; this one fills one."""

    @staticmethod
    def forward(ctx: Any, missed: Tensor) -> Tensor:
        ctx.save_for_backward(missed)
        return squares_of(missed).sum()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        (missed,) = ctx.saved_tensors
        return missed * (2 * grad)
