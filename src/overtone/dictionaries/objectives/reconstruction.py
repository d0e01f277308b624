"""How much of the states' variance the reconstruction misses."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from overtone.dictionaries.objectives.base import Objective, StepView


@dataclass(frozen=True)
class Reconstruction(Objective):
    """mean over rows of ||x - x_hat||^2, divided by E||x - mean||^2 (a constant fitted before training)."""

    sliceable = True
    separable = True

    def __call__(self, step: StepView) -> Tensor:
        """The unexplained share, 0 or more."""
        return unexplained(step.x_hat, step)


def unexplained(x_hat: Tensor, step: StepView) -> Tensor:
    """() the share of the variance that a reconstruction (rows, width) of the step's states misses."""
    return _SquaredError.apply(x_hat, step.x) / (len(step.x) * step.dictionary.spread)


class _SquaredError(torch.autograd.Function):
    """||x_hat - x||^2 over all rows, differentiable in x_hat. Torch's own function fills three matrices of rows x width
    on the way there and back; this one two."""

    @staticmethod
    def forward(ctx: Any, x_hat: Tensor, x: Tensor) -> Tensor:
        missed = x_hat - x
        ctx.save_for_backward(missed)
        return torch.linalg.vector_norm(missed, dim=-1).square().sum()  # one sum over all would lose digits

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        (missed,) = ctx.saved_tensors
        return missed * (2 * grad), None
