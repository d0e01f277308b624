"""Where the latents at hand lie in the whole dictionary, for parts and maintainers that ask about all latents."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass

import torch
from torch import Tensor

from overtone.core.tensor_files import rows_per_block


@dataclass(frozen=True, eq=False)
class Slice:
    """Latents of a dictionary that are next to each other.

    spans: for each holder, its first latent and the next one's first; place: which of them is this one; gather, add:
    the parts of all holders in order, and their sum. `whole` and `total` speak to the other holders: all of them must
    ask the same in the same order.
    """

    spans: tuple[tuple[int, int], ...]
    place: int
    gather: Callable[[Tensor], list[Tensor]]
    add: Callable[[Tensor], Tensor]

    @classmethod
    def all(cls, n_latents: int) -> "Slice":
        """That of a dictionary which is not spread over processes."""
        return cls(((0, n_latents),), 0, lambda part: [part], lambda part: part)

    @property
    def first(self) -> int:
        """Number of the first latent at hand."""
        return self.spans[self.place][0]

    @property
    def n_latents(self) -> int:
        """Latents of the whole dictionary."""
        return self.spans[-1][1]

    @property
    def size(self) -> int:
        """Latents at hand."""
        first, last = self.spans[self.place]
        return last - first

    def own(self, whole: Tensor) -> Tensor:
        """What of a tensor over all latents belongs to those at hand; latents are the last axis."""
        first, last = self.spans[self.place]
        return whole[..., first:last]

    def inside(self, latents: Tensor) -> Tensor:
        """Of (n,) latents by number in the whole dictionary those at hand, by number here."""
        first, last = self.spans[self.place]
        return latents[(latents >= first) & (latents < last)] - first

    def whole(self, part: Tensor) -> Tensor:
        """A tensor over all latents, its first axis, from those of all holders."""
        parts = self.gather(part)
        return parts[0] if len(parts) == 1 else torch.cat(parts)

    def moved(self, part: Tensor, order: Tensor) -> Tensor:
        """What those at hand hold of something, whose first axis are latents, after a permutation of all of them: new
        place i what place order[i] held. All of it goes by, block by block."""
        if len(self.spans) == 1:
            return part[order]
        wanted, found, per = self.own(order), torch.empty_like(part), rows_per_block(part)
        for start in range(0, max(last - first for first, last in self.spans), per):
            pieces = self.gather(part[start : start + per])
            for (first, _), piece in zip(self.spans, pieces, strict=True):
                place = wanted - (first + start)
                here = (place >= 0) & (place < len(piece))
                found[here] = piece[place[here]]
        return found

    def renamed(self, latents: Tensor, order: Tensor) -> Tensor:
        """The latents at hand, by number here, that a list names after such a permutation; the holders' lists together
        name the same latents as before."""
        return torch.isin(self.own(order), self.whole(latents + self.first)).nonzero().view(-1)

    def total(self, part: Tensor) -> Tensor:
        """The sum of what all holders have; without gradients."""
        return self.add(part)


_MADE: ContextVar[Slice | None] = ContextVar("slice that is being made", default=None)


@contextmanager
def making(where: Slice) -> Iterator[None]:
    """Inside, a dictionary as wide as the whole one of `where` is made of the latents at hand alone, as far as its rows
    come from `random_rows`. What does not is made whole, and must be cut afterwards."""
    token = _MADE.set(where)
    try:
        yield
    finally:
        _MADE.reset(token)


def being_made() -> Slice | None:
    """The slice that is being made; None: dictionaries are made whole."""
    return _MADE.get()
