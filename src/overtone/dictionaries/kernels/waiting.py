"""Gradients of parameters that wait: what they are sums of is kept instead, until the update makes them row by row.

A gradient of a sparse product has as many numbers as the parameter, and is used once: by the update that follows. Made
there it never leaves the cache. Its norm, by which gradients are shortened, is then not known; a bound of it is, which
the length of no sum exceeds: that of its terms. Where the bound does not tell, gradients are made before.
"""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import TYPE_CHECKING

from torch import Tensor

from overtone.dictionaries.codes import Support

if TYPE_CHECKING:
    from overtone.dictionaries.kernels.sparse import Products


@dataclass(frozen=True, eq=False)
class Sums:
    """(latents, width): for each latent, the sum over its places of value x state of the place's row. most: the
    Frobenius norm is no larger."""

    products: "Products"
    values: Tensor
    states: Tensor
    at: Support
    most: float

    def made(self) -> Tensor:
        """The matrix."""
        return self.products.sum_by_latent(self.values, self.states, self.at)[0]


class Waiting:
    """Sums by parameter, for those parameters whose gradients may wait."""

    def __init__(self, parameters: Iterable[Tensor]) -> None:
        self.sums: dict[int, list[Sums]] = {id(parameter): [] for parameter in parameters}

    def __contains__(self, parameter: Tensor) -> bool:
        """Whether its gradient may wait."""
        return id(parameter) in self.sums

    def add(self, parameter: Tensor, sums: Sums) -> None:
        """One term more of its gradient."""
        self.sums[id(parameter)].append(sums)

    def make(self, parameter: Tensor) -> None:
        """Add what waits to the parameter's gradient."""
        for sums in self.sums[id(parameter)]:
            made = sums.made()
            parameter.grad = made if parameter.grad is None else parameter.grad + made
        self.sums[id(parameter)].clear()

    def alone(self, parameter: Tensor) -> Sums | None:
        """What waits, if it is all of the gradient and one term. What else waits is added to the gradient."""
        terms = self.sums.get(id(parameter), [])
        if not terms:
            return None
        if len(terms) == 1 and parameter.grad is None:
            return terms[0]
        self.make(parameter)
        return None


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
