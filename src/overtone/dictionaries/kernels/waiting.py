"""Gradients of parameters that wait: what they are sums of is kept instead, until the update makes them row by row.

A gradient of a sparse product has as many numbers as the parameter, and is used once: by the update that follows. Made
there it never leaves the cache. Its norm, by which gradients are shortened, is then not known; a bound of it is, which
the length of no sum exceeds: that of its terms. Where the bound does not tell, gradients are made before.
"""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from overtone.dictionaries.codes import Support

if TYPE_CHECKING:
    from overtone.dictionaries.kernels.sparse import Products


@dataclass(frozen=True, eq=False)
class Rows:
    """(latents, width), zeros but for some rows: (n,) latents, each once, and their (n, width) gradient."""

    latents: Tensor
    gradient: Tensor

    @property
    def most(self) -> float:
        """Their norm."""
        return float(torch.linalg.vector_norm(self.gradient))


@dataclass(frozen=True, eq=False)
class Sums:
    """(latents, width): for each latent, the sum over its places of value x state of the place's row, and what `more`
    has of it. most: the Frobenius norm is no larger. ordered: (n,) the values by latent, where known."""

    products: "Products"
    values: Tensor
    states: Tensor
    at: Support
    most: float
    more: Rows | None = None
    ordered: Tensor | None = None

    @property
    def by_latent(self) -> Tensor:
        """(n,) the values by latent."""
        return self.values.index_select(0, self.at.by_latent[0]) if self.ordered is None else self.ordered

    def made(self) -> Tensor:
        """The matrix."""
        made = self.products.sum_by_latent(self.values, self.states, self.at)[0]
        return made if self.more is None else made.index_add_(0, self.more.latents, self.more.gradient)


class Waiting:
    """Terms of gradients by parameter, for those parameters whose gradients may wait."""

    def __init__(self, parameters: Iterable[Tensor]) -> None:
        self.terms: dict[int, list[Sums | Rows]] = {id(parameter): [] for parameter in parameters}

    def __contains__(self, parameter: Tensor) -> bool:
        """Whether its gradient may wait."""
        return id(parameter) in self.terms

    def add(self, parameter: Tensor, term: Sums | Rows) -> None:
        """One term more of its gradient."""
        self.terms[id(parameter)].append(term)

    def make(self, parameter: Tensor) -> None:
        """Add what waits to the parameter's gradient."""
        terms = self.terms[id(parameter)]
        for sums in (term for term in terms if isinstance(term, Sums)):
            made = sums.made()
            parameter.grad = made if parameter.grad is None else parameter.grad + made
        for rows in (term for term in terms if isinstance(term, Rows)):
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
            parameter.grad.index_add_(0, rows.latents, rows.gradient)
        terms.clear()

    def alone(self, parameter: Tensor) -> Sums | None:
        """What waits, if it is all of the gradient, and sums with some rows at most. What else waits is added to the
        gradient."""
        terms = self.terms.get(id(parameter), [])
        if not terms:
            return None
        sums = [term for term in terms if isinstance(term, Sums)]
        rows = [term for term in terms if isinstance(term, Rows)]
        if parameter.grad is not None or len(sums) != 1 or len(rows) > 1:
            self.make(parameter)
            return None
        if rows:
            terms[:] = [replace(sums[0], most=sums[0].most + rows[0].most, more=rows[0])]
        return terms[0] if isinstance(terms[0], Sums) else None


def rows_of(weight: Tensor, latents: Tensor) -> Tensor:
    """(n, width) rows of a weight, of (n,) latents each of which is there once. Their gradient may wait."""
    return _RowsOf.apply(weight, latents)


class _RowsOf(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, weight: Tensor, latents: Tensor) -> Tensor:
        ctx.latents, ctx.weight, ctx.waiting = latents, weight, waiting()
        return weight.index_select(0, latents)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, None]:
        if ctx.waiting is not None and ctx.weight in ctx.waiting:
            ctx.waiting.add(ctx.weight, Rows(ctx.latents, grad.contiguous()))
            return None, None
        return torch.zeros_like(ctx.weight).index_add_(0, ctx.latents, grad), None


_WAITING: ContextVar[Waiting | None] = ContextVar("gradients that may wait", default=None)


@contextmanager
def may_wait(parameters: Iterable[Tensor]) -> Iterator[Waiting]:
    """Gradients of these parameters may wait, of steps that go forward and back while inside."""
    waiting = Waiting(parameters)
    token = _WAITING.set(waiting)
    try:
        yield waiting
    finally:
        _WAITING.reset(token)


def waiting() -> Waiting | None:
    """Those that may wait now."""
    return _WAITING.get()
