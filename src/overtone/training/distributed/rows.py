"""Each process works on some rows of each batch, with a copy of the dictionary that stays the same in all of them.

The heavy work of a step (encoder, selection, decoding and their gradients) is done on a process's own rows. What comes
out, codes and reconstructions, is put together again and is small beside the gradients, which all processes average.
So objectives and maintainers see the whole batch, batch selection ranks the whole batch, and the result is that of one
process up to the order of additions.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from overtone.dictionaries.autoencoder import Autoencoder
from overtone.dictionaries.choice import Chosen, Settle
from overtone.dictionaries.codes import Support
from overtone.dictionaries.maintainers.base import Maintainer
from overtone.dictionaries.objectives.base import Objective
from overtone.training.distributed.exchange import SUM, TIMES, gathered
from overtone.training.distributed.share import Complete, Rows, SharedStep
from overtone.training.distributed.world import World
from overtone.training.step import Given, OfAllLatents, Step, forward, in_units, takes_dense_way


class RowShare(Complete):
    """Some rows of each batch. Of a batch with fewer rows than processes everyone does all."""

    def __init__(self, model: Autoencoder, world: World) -> None:
        self.model, self.world = model, world
        model.selection.widen()  # hints that processes took from their own rows would differ

    def accept(self, objectives: Sequence[Objective], maintainers: Sequence[Maintainer]) -> None:
        """All can: they see the whole batch."""

    def forward(self, given: Given) -> SharedStep:
        """The step on the whole batch, of which this process computes its rows."""
        n_rows = len(given.x)
        if n_rows < self.world.size:
            return forward(self.model, given)
        first, _ = self.world.span(n_rows)
        mine = _SomeRows(n_rows, self.world).own(given)
        settle = self._settle(n_rows, first) if self.model.selection.rows_compete else None
        dense = takes_dense_way(self.model, given)
        local = forward(self.model, replace(mine, settle=settle, dense=dense))
        return _RowStep.joined(local, given, self.world)

    def rows(self, given: Given) -> Rows:
        """Some of them, if there are enough."""
        return _SomeRows(len(given.x), self.world) if len(given.x) >= self.world.size else Rows()

    def _settle(self, n_rows: int, first: int) -> Settle:
        def settle(nominees: Support, scores: Tensor) -> Tensor | None:
            counts = self.world.lengths(scores)
            every, span = _joined_support(nominees, n_rows, first, self.world, counts)
            keep = self.model.selection.settle(every, torch.cat(self.world.gather(scores, counts)))
            return None if keep is None else keep[span]

        return settle

    def reduce(self, gradients: Mapping[str, Tensor]) -> None:
        """The mean over the processes, see `exchange`."""
        for name in sorted(gradients):
            self.world.add(gradients[name]).div_(self.world.size)


class _SomeRows(Rows):
    """See `Rows`: every process has a span of the batch."""

    def __init__(self, n_rows: int, world: World) -> None:
        self.n_rows, self.world, self.copies = n_rows, world, world.size

    def own(self, given: Given) -> Given:
        """The rows of its span."""
        first, last = self.world.span(self.n_rows)
        y, g = (None if part is None else part[first:last] for part in (given.y, given.g))
        return replace(given, x=given.x[first:last], y=y, g=g, first=given.first + first)

    def whole(self, part: Tensor) -> Tensor:
        """The rows of all processes."""
        return torch.cat(self.world.gather(part, [last - first for first, last in self.world.spans(self.n_rows)]))

    def total(self, part: Tensor) -> Tensor:
        """The sum over all processes."""
        return self.world.add(part.clone())

    def highest(self, part: Tensor) -> Tensor:
        """The maximum over all processes."""
        return self.world.highest(part.clone())


@dataclass(eq=False)
class _RowStep(OfAllLatents):
    """The step of a whole batch. local: that of this process's rows; spans: rows of each process; places: where this
    one's values lie."""

    local: Step
    world: World
    spans: list[int]
    places: slice

    @classmethod
    def joined(cls, local: Step, given: Given, world: World) -> "_RowStep":
        """The steps of all processes put together."""
        model, n_rows = local.dictionary, len(given.x)
        _, target, centred = in_units(model, given)
        chosen, places = None, slice(*world.span(n_rows))
        counts = lengths = [last - first for first, last in world.spans(n_rows)]
        if local.chosen is not None:
            lengths = _places(local.chosen.support, counts, world)
            chosen, places = _joined_chosen(local.chosen, n_rows, places.start, world, lengths)
        # After a dense pass, heads that are the same for all rows have no axis for them.
        heads = {
            name: gathered(head, world, SUM, lengths) if head.ndim == local.values.ndim else head
            for name, head in local.heads.items()
        }
        return cls(
            model, target, gathered(local.missed, world, TIMES, counts), centred,
            gathered(local.values, world, SUM, lengths), heads, local.dead, local.progress, local.state, chosen,
            local, world, counts, places,
        )  # fmt: skip

    @property
    def squared_error(self) -> Tensor:
        """() ||x_hat - x||^2, each process knowing that of its rows."""
        return gathered(self.local.squared_error.view(1), self.world, TIMES, [1] * self.world.size).sum()

    @property
    def norms(self) -> Tensor:
        """(latents,) lengths of the decoder's rows."""
        return self.local.norms

    @torch.no_grad()
    def counts(self) -> Tensor:
        """(latents,) in how many rows of the whole batch each latent is active."""
        return self.world.add(self.local.counts())

    def decoded(self, values: Tensor, keep: Tensor | None = None, *, frozen: bool = False) -> Tensor:
        """(rows, width) decoding of other values, each process decoding its rows."""
        kept = None if keep is None else keep[self.places]
        return gathered(self.local.decoded(values[self.places], kept, frozen=frozen), self.world, TIMES, self.spans)

    def decoded_from(self, latents: Tensor, k: int) -> Tensor:
        """(rows, width) decoding of the k best-scored of some latents, each process for its rows."""
        return gathered(self.local.decoded_from(latents, k), self.world, TIMES, self.spans)


def _places(own: Support, counts: list[int], world: World) -> list[int]:
    """How many places each process has."""
    return world.lengths(own.rows) if own.per_row is None else [rows * own.per_row for rows in counts]


def _joined_support(own: Support, n_rows: int, first: int, world: World, counts: list[int]) -> tuple[Support, slice]:
    """The places of all processes, and where this one's lie among them."""
    rows, latents = (torch.cat(world.gather(part, counts)) for part in (own.rows + first, own.latents))
    start = sum(counts[: world.rank])
    return Support(rows, latents, n_rows, own.n_latents, own.per_row), slice(start, start + len(own.rows))


@torch.no_grad()
def _joined_chosen(own: Chosen, n_rows: int, first: int, world: World, counts: list[int]) -> tuple[Chosen, slice]:
    support, places = _joined_support(own.support, n_rows, first, world, counts)
    sides = {name: torch.cat(world.gather(own.sides[name], counts)) for name in sorted(own.sides)}
    peaks = None if own.peaks is None else world.highest(own.peaks.clone())
    return Chosen(support, torch.cat(world.gather(own.u, counts)), sides, peaks), places
