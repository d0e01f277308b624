"""One step of a dictionary whose latents are spread over processes: what objectives see of it, and the cut among all.

After a sparse pass objectives see the active places of all processes; after a dense one values of a process's own
latents, and sums over those of all.
"""

from dataclasses import dataclass, field

import torch
from torch import Tensor
from torch.nn.functional import linear, pad

from overtone.dictionaries.autoencoder import Autoencoder
from overtone.dictionaries.choice import Chosen
from overtone.dictionaries.codes import Support, positions
from overtone.dictionaries.kernels import dense
from overtone.dictionaries.kernels.dispatch import kernels_for
from overtone.training.distributed.exchange import OWN, common, gathered, total
from overtone.training.distributed.world import World
from overtone.training.step import StepFields, active_rows, decoded_densely, densely_from


class Cut:
    """The cut among the nominees of all processes, and how their places, sorted by row, lie together."""

    def __init__(self, model: Autoencoder, world: World, centred: Tensor) -> None:
        self.model, self.world, self.centred, self.scores = model, world, centred, torch.zeros(0)

    def __call__(self, own: Support, scores: Tensor) -> Tensor | None:
        """(n,) mask of this process's nominees that are active; None asks all processes for more."""
        if self.model.selection.latents_compete:
            return self._united(own, scores)
        keep = self._by_itself(own, scores)
        if keep is not None:
            which = positions(keep)
            counts, kept = self.world.lengths(which), scores.index_select(0, which)
            rows, latents, every = self._gathered(own.taken(which), kept, counts)
            self._remember(rows, latents, every, counts)
        return keep

    def _by_itself(self, own: Support, scores: Tensor) -> Tensor | None:
        if not self.model.selection.rows_compete:
            return torch.ones_like(scores, dtype=torch.bool)
        keep = self.model.selection.settle(own, scores)
        return None if self.world.any(keep is None)[0] else keep

    def _united(self, own: Support, scores: Tensor) -> Tensor | None:
        counts = self.world.lengths(scores)
        rows, latents, every = self._gathered(own, scores, counts)
        order = torch.sort(rows, stable=True).indices
        nominees = Support(rows[order], latents[order], own.n_rows, self.model.slice.n_latents)
        keep = self.model.selection.unite(nominees, every[order], self.centred)
        if keep is None:
            return None
        unsorted = torch.empty_like(keep)
        unsorted[order] = keep
        parts = unsorted.split(counts)
        self._remember(rows[unsorted], latents[unsorted], every[unsorted], [int(part.sum()) for part in parts])
        return parts[self.world.rank]

    def _gathered(self, own: Support, scores: Tensor, counts: list[int]) -> list[Tensor]:
        """Rows, latents and scores of all processes' places."""
        parts = own.rows, own.latents + self.model.slice.first, scores
        return [torch.cat(self.world.gather(part, counts)) for part in parts]

    def _remember(self, rows: Tensor, latents: Tensor, scores: Tensor, counts: list[int]) -> None:
        self.counts, self.order = counts, torch.sort(rows, stable=True).indices
        self.rows, self.latents, self.scores = (t[self.order] for t in (rows, latents, scores))
        back = torch.empty_like(self.order)
        back[self.order] = torch.arange(len(back), device=back.device)
        self.mine = back.split(counts)[self.world.rank]  # where this process's places went

    def joined(self, values: Tensor) -> Tensor:
        """Values of this process's places -> those of all places, by row; a number for all places stays."""
        if not values.ndim:
            return values
        return gathered(values, self.world, OWN, self.counts)[self.order]


@dataclass(eq=False)
class _OnSlice(StepFields):
    """What both kinds of step have and answer alike; see `StepView`. dictionary: this process's slice; dead: by number
    in the whole dictionary."""

    world: World

    @property
    def centre(self) -> Tensor | float:
        """What was subtracted before encoding; its gradient collects what all processes give."""
        return shared_centre(self.dictionary, self.world)

    def everyones(self, part: Tensor) -> Tensor:
        """The sum of all processes' parts."""
        return total(part, self.world)

    def decoded_from(self, latents: Tensor, k: int) -> Tensor:
        """(rows, width) decoding of the k best-scored of some latents, wherever these are."""
        return _decoded_from(self.dictionary, self.world, self.centred, latents, k)


@dataclass(eq=False)
class SliceStep(_OnSlice):
    """The step of a whole batch and dictionary. chosen, own_values: this process's active places."""

    chosen: Chosen
    scores: Tensor
    own_values: Tensor
    cut: Cut

    dense = False

    @property
    def norms(self) -> Tensor:
        """(latents,) lengths of the decoder's rows, those of this process."""
        return self.dictionary.decoder.norms()

    @property
    def latents(self) -> Tensor:
        """The latent of each value, by number in the whole dictionary."""
        return self.cut.latents

    def at(self, vector: Tensor) -> Tensor:
        """A vector over this process's latents, in the layout of `values`: with what the others have of theirs."""
        return self.cut.joined(self.chosen.support.at(vector))

    def counts(self) -> Tensor:
        """(latents,) in how many rows each of this process's latents is active."""
        return active_rows(self.own_values, self.chosen.support)

    def summed(self, values: Tensor) -> Tensor:
        """(rows,) sums over the latents of each row, those of all processes."""
        return values.new_zeros(len(self.x)).index_add(0, self.cut.rows, values)

    def total(self, values: Tensor) -> Tensor:
        """() sum over the places of all processes."""
        return values.sum()

    def decoded(self, values: Tensor, keep: Tensor | None = None, *, frozen: bool = False) -> Tensor:
        """(rows, width) decoding of other values, each process decoding those of its latents."""
        weight, support = self.dictionary.decoder.rows(), self.chosen.support
        weight, own = weight.detach() if frozen else weight, values[self.cut.mine]
        if keep is not None:
            which = positions(keep[self.cut.mine])
            own, support = own.index_select(0, which), support.taken(which)
        return total(kernels_for(own.device).decode(own, weight, support), self.world)


@dataclass(eq=False)
class DenseSliceStep(_OnSlice):
    """As SliceStep after a dense pass: values and heads are (rows, latents) of this process's latents."""

    known_norms: Tensor | None = None
    chosen: None = field(default=None, init=False)
    scores: None = field(default=None, init=False)

    dense = True

    @property
    def norms(self) -> Tensor:
        """(latents,) lengths of the decoder's rows, those of this process."""
        return self.dictionary.decoder.norms() if self.known_norms is None else self.known_norms

    @property
    def latents(self) -> Tensor:
        """The latent of each value, by number in the whole dictionary."""
        where = self.dictionary.slice
        return torch.arange(where.first, where.first + where.size, device=self.values.device).unsqueeze(0)

    def at(self, vector: Tensor) -> Tensor:
        """The vector."""
        return vector

    def counts(self) -> Tensor:
        """(latents,) in how many rows each of this process's latents is active."""
        return active_rows(self.values, None)

    def summed(self, values: Tensor) -> Tensor:
        """(rows,) sums over the latents of each row, those of all processes."""
        return total(values.sum(1), self.world)

    def total(self, values: Tensor) -> Tensor:
        """() sum over the places of all processes."""
        return total(values.sum(), self.world)

    def decoded(self, values: Tensor, keep: Tensor | None = None, *, frozen: bool = False) -> Tensor:
        """(rows, width) decoding of other values, each process decoding those of its latents."""
        weight = self.dictionary.decoder.rows()
        kept = values if keep is None else values * keep
        return total(dense.decode(kept, weight.detach() if frozen else weight), self.world)


def shared_centre(model: Autoencoder, world: World) -> Tensor | float:
    """What is subtracted before encoding; its gradient collects what the latents of all processes give."""
    centre = model.centre()
    return common(centre, world) if isinstance(centre, Tensor) else centre


def _decoded_from(model: Autoencoder, world: World, centred: Tensor, latents: Tensor, k: int) -> Tensor:
    kernels, mine = kernels_for(centred.device), model.slice.inside(latents)
    if densely_from(latents, k):
        among = None if k >= len(latents) else lambda scores: _mask_of_best(scores, k, world)
        return total(decoded_densely(model, centred, shared_centre(model, world), mine, among), world)
    weight, bias = model.encoder.affine(model.decoder)
    with torch.no_grad():
        few = linear(centred, weight[mine], bias[mine])
        scores = model.score(model.heads_of(few, lambda v: v[mine], {}), lambda v: v[mine])
        rows, places = _best(scores, k, world)
        support = Support(rows, mine[places], len(few), model.n_latents)
    u = kernels.preactivations(centred, shared_centre(model, world), weight, bias, few[rows, places], support)
    values = model.value(model.heads_of(u, support.at, {}), support.at)
    return total(kernels.decode(values, model.decoder.rows(), support), world)


def _mask_of_best(scores: Tensor, k: int, world: World) -> Tensor:
    """Where this process's scores are among the k best of all processes' in their row."""
    return torch.zeros_like(scores, dtype=torch.bool).index_put_(_best(scores, k, world), torch.tensor(True))


def _best(scores: Tensor, k: int, world: World) -> tuple[Tensor, Tensor]:
    """Rows and columns of this process's scores that are among the k best of all processes' in their row."""
    n = min(k, scores.shape[1])
    best = scores.topk(n, dim=1)
    offered = pad(best.values, (0, k - n), value=-torch.inf)
    every = torch.cat(world.gather(offered[None])).transpose(0, 1).reshape(len(scores), world.size * k)
    won = torch.zeros_like(every, dtype=torch.bool).scatter_(1, every.topk(k, dim=1).indices, True)
    rows, slots = won[:, world.rank * k : world.rank * k + n].nonzero(as_tuple=True)
    return rows, best.indices[rows, slots]
