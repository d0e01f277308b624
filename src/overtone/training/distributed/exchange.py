"""What crosses the processes within a step, with its gradients.

Every process computes the same loss of the same whole batch, so the gradient of what all of them hold is the same
everywhere, and complete. The functions differ in what they do with it.
"""

from typing import Any

import torch
from torch import Tensor

from overtone.training.distributed.world import World

OWN, TIMES, SUM = "own", "times", "sum"


def gathered(part: Tensor, world: World, gradient: str, counts: list[int] | None = None) -> Tensor:
    """The parts of all processes, one after the other. counts: their lengths, if known. What a part's gradient is, of
    the whole's gradient:

    OWN    its own slice
    TIMES  its own slice times the number of processes, where the mean over these is taken of parameters' gradients
    SUM    its own slice of the sum over processes: as TIMES, for wholes of which a process may use a slice again
    """
    return _Gathered.apply(part, world, gradient, counts)


def total(part: Tensor, world: World) -> Tensor:
    """The sum over all processes; each part's gradient is that of the sum."""
    return _Total.apply(part, world)


def common(tensor: Tensor, world: World) -> Tensor:
    """The same tensor, of which each process uses its share: its gradient is the sum over the processes."""
    return _Common.apply(tensor, world)


class _Gathered(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, part: Tensor, world: World, gradient: str, counts: list[int] | None) -> Tensor:
        parts = world.gather(part.detach(), counts)
        start = sum(len(p) for p in parts[: world.rank])
        ctx.span, ctx.world, ctx.gradient = (start, start + len(part)), world, gradient
        return torch.cat(parts)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        if ctx.gradient == SUM:
            grad = ctx.world.add(grad.clone(memory_format=torch.contiguous_format))
        own = grad[slice(*ctx.span)]
        return own * ctx.world.size if ctx.gradient == TIMES else own, None, None, None


class _Total(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, part: Tensor, world: World) -> Tensor:
        return world.add(part.detach().clone(memory_format=torch.contiguous_format))

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        return grad, None


class _Common(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, tensor: Tensor, world: World) -> Tensor:
        ctx.world = world
        return tensor.view_as(tensor)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        return ctx.world.add(grad.clone(memory_format=torch.contiguous_format)), None
