"""Each process holds a slice of the latents, for dictionaries that do not fit one device, and sees all rows.

Selection takes two cuts: each process nominates among its latents as if there were no others, then the cut is made
among the nominees of all. Partial reconstructions are added up. Gradients, optimiser and per-latent statistics stay
where the latents are; what all latents share (the constant, input scales) is the same everywhere. The result is that of
one process up to the order of additions.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import linear, pad
from torch.nn.utils import get_total_norm

from overtone.core.errors import CapabilityError
from overtone.dictionaries.autoencoder import Autoencoder, Chosen
from overtone.dictionaries.codes import Support
from overtone.dictionaries.encoders.base import Heads
from overtone.dictionaries.maintainers.base import Maintainer
from overtone.dictionaries.objectives.base import Objective
from overtone.dictionaries.parts import Part, rebuild
from overtone.training.distributed.exchange import OWN, common, gathered, total
from overtone.training.distributed.world import World
from overtone.training.kernels.dispatch import kernels_for
from overtone.training.step import Given, in_units
from overtone.training.surgery import per_latent


class LatentShare:
    """A slice of the latents of a dictionary, which is cut down to it."""

    alone = False

    def __init__(self, whole: Autoencoder, world: World) -> None:
        """Raises CapabilityError if the dictionary has a part that cannot work on a slice, or too few latents."""
        _refuse_unsliceable(part for part in whole.modules() if isinstance(part, Part) and part is not whole)
        self.world, self.n_latents, self.spec, self.origin = world, whole.n_latents, whole.spec(), whole.origin
        self.first, last = world.span(whole.n_latents)
        self.names = set(per_latent(whole))
        self.model = _cut(whole, self.names, self.first, last)
        smallest = self.n_latents // world.size
        if smallest < getattr(whole.selection, "budget", 1):
            raise CapabilityError(
                f"{world.size} processes hold {smallest} latents each, fewer than are active in a row. Use fewer "
                "processes, or split the rows instead (split='rows')."
            )
        self.model.selection.widen()  # hints that processes took from their own latents would differ
        self._dead: tuple[Tensor | None, Tensor] = None, torch.zeros(0, dtype=torch.int64)

    def accept(self, objectives: Sequence[Objective], maintainers: Sequence[Maintainer]) -> None:
        """Those that say they are `sliceable` can."""
        _refuse_unsliceable([*objectives, *maintainers])

    def forward(self, given: Given) -> "_SliceStep":
        """The step on the whole batch, of which this process computes its latents. Never takes the dense way."""
        model, kernels = self.model, kernels_for(given.x.device)
        if given.all_latents:
            raise CapabilityError("an objective looks at all latents at once; split the rows instead (split='rows').")
        inputs, target, centred = in_units(model, given)
        cut = _Cut(self)
        chosen = kernels.choose(model, centred, beside={}, peaks=given.peaks, settle=cut)
        weight, bias = model.encoder.affine(model.decoder)
        u = kernels.preactivations(centred, self.centre(), weight, bias, chosen.u, chosen.support)
        heads = model.heads_of(u, chosen.support.at, chosen.sides)
        values = model.value(heads, chosen.support.at)
        x_hat = total(kernels.decode(values, model.decoder.rows(), chosen.support), self.world)
        return _SliceStep(
            self, model, target, x_hat + model.decoder.constant(inputs), centred, cut.joined(values),
            {name: cut.joined(heads[name]) for name in sorted(heads)}, given.dead, given.progress, given.state,
            chosen, cut.scores, values.detach(), cut,
        )  # fmt: skip

    def centre(self) -> Tensor | float:
        """What is subtracted before encoding; its gradient collects what the latents of all processes give."""
        centre = self.model.centre()
        return common(centre, self.world) if isinstance(centre, Tensor) else centre

    def dead(self, latents: Tensor) -> Tensor:
        """The dead latents of all processes, by their number in the whole dictionary."""
        if self._dead[0] is not latents:  # the list is renewed now and then, by all processes in the same step
            self._dead = latents, torch.cat(self.world.gather(latents + self.first))
        return self._dead[1]

    def reduce(self, gradients: Mapping[str, Tensor]) -> None:
        """They are complete."""

    def norm(self, gradients: Mapping[str, Tensor]) -> Tensor:
        """The norm over all latents; what they share counts once."""
        sliced = get_total_norm([g for name, g in gradients.items() if name in self.names])
        shared = get_total_norm([g for name, g in gradients.items() if name not in self.names])
        return (self.world.add(sliced.square()) + shared.square()).sqrt()

    def mean_over_latents(self, value: float) -> float:
        """The mean over all processes' latents."""
        mine = torch.tensor(value * self.model.n_latents, dtype=torch.float64)
        return float(self.world.add(mine)) / self.n_latents

    def whole(self, tensors: dict[str, Tensor], maintainers: Sequence[Maintainer]) -> dict[str, Tensor]:
        """The tensors of all slices put together."""
        rows, lists = self._layout(maintainers)
        found = {}
        for name in sorted(tensors):
            tensor = tensors[name] + self.first if name in lists else tensors[name]
            found[name] = torch.cat(self.world.gather(tensor)) if name in rows | lists else tensor
        return found

    def own(self, tensors: dict[str, Tensor], maintainers: Sequence[Maintainer]) -> dict[str, Tensor]:
        """This slice of what `whole` gave."""
        rows, lists = self._layout(maintainers)
        last = self.first + self.model.n_latents
        found = {name: t[self.first : last].clone() if name in rows else t for name, t in tensors.items()}
        for name in lists:
            inside = (tensors[name] >= self.first) & (tensors[name] < last)
            found[name] = tensors[name][inside] - self.first
        return found

    def _layout(self, maintainers: Sequence[Maintainer]) -> tuple[set[str], set[str]]:
        """Names of a run's tensors that have latents first, and of those that list latents by number."""
        rows = {f"{kind}.{name}" for kind in ("model", "moments.mean", "moments.square") for name in self.names}
        rows |= {f"maintainer.{i}.{key}" for i, m in enumerate(maintainers) for key in m.per_latent}
        return rows, {f"maintainer.{i}.{key}" for i, m in enumerate(maintainers) for key in m.lists}

    def dictionary(self) -> Autoencoder:
        """The whole dictionary, put together on the CPU of every process."""
        state = self.model.state_dict()
        found = {
            name: torch.cat(self.world.gather(state[name])) if name in self.names else state[name]
            for name in sorted(state)
        }
        whole = rebuild(self.spec)
        whole.load_state_dict({name: tensor.cpu() for name, tensor in found.items()}, assign=True)
        whole.origin = self.origin
        return whole


class _Cut:
    """The cut among the nominees of all processes, and how their places, sorted by row, lie together."""

    def __init__(self, share: LatentShare) -> None:
        self.share, self.scores = share, torch.zeros(0)

    def __call__(self, own: Support, scores: Tensor) -> Tensor | None:
        """(n,) mask of this process's nominees that are active; None asks all processes for more."""
        world, counts = self.share.world, self.share.world.lengths(scores)
        parts = own.rows, own.latents + self.share.first, scores
        rows, latents, every = (torch.cat(world.gather(part, counts)) for part in parts)
        order = torch.sort(rows, stable=True).indices
        nominees = Support(rows[order], latents[order], own.n_rows, self.share.n_latents)
        keep = self.share.model.selection.unite(nominees, every[order])
        if keep is None:
            return None
        unsorted = torch.empty_like(keep)
        unsorted[order] = keep
        self.counts = [int(part.sum()) for part in unsorted.split(counts)]
        self._remember(rows, latents, every, unsorted)
        return unsorted.split(counts)[world.rank]

    def _remember(self, rows: Tensor, latents: Tensor, scores: Tensor, keep: Tensor) -> None:
        self.order = torch.sort(rows[keep], stable=True).indices
        self.rows, self.latents, self.scores = (t[keep][self.order] for t in (rows, latents, scores))
        back = torch.empty_like(self.order)
        back[self.order] = torch.arange(len(back), device=back.device)
        self.mine = back.split(self.counts)[self.share.world.rank]  # where this process's places went

    def joined(self, values: Tensor) -> Tensor:
        """Values of this process's places -> those of all places, by row; a number for all places stays."""
        if not values.ndim:
            return values
        return gathered(values, self.share.world, OWN, self.counts)[self.order]


@dataclass(eq=False)
class _SliceStep:
    """The step of a whole batch and dictionary; see `StepView`. dictionary: this process's slice; dead: by number in
    the whole dictionary; chosen, own_values: this process's active places."""

    share: LatentShare
    dictionary: Autoencoder
    x: Tensor
    x_hat: Tensor
    centred: Tensor
    values: Tensor
    heads: Heads
    dead: Tensor
    progress: float
    state: Mapping[str, Tensor]
    chosen: Chosen
    scores: Tensor
    own_values: Tensor
    cut: _Cut

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

    def fired(self) -> Tensor:
        """(latents,) bool: which of this process's latents are active."""
        counts = torch.zeros(self.dictionary.n_latents, dtype=torch.int32, device=self.own_values.device)
        return counts.index_add_(0, self.chosen.support.latents, (self.own_values != 0).int()) > 0

    def summed(self, values: Tensor) -> Tensor:
        """(rows,) sums over the latents of each row, those of all processes."""
        return values.new_zeros(len(self.x)).index_add(0, self.cut.rows, values)

    def decoded(self, values: Tensor, keep: Tensor | None = None, *, frozen: bool = False) -> Tensor:
        """(rows, width) decoding of other values, each process decoding those of its latents."""
        weight, support = self.dictionary.decoder.rows(), self.chosen.support
        weight, own = weight.detach() if frozen else weight, values[self.cut.mine]
        if keep is not None:
            kept = keep[self.cut.mine]
            own, support = own[kept], support.kept(kept)
        return total(kernels_for(own.device).decode(own, weight, support), self.share.world)

    def decoded_from(self, latents: Tensor, k: int) -> Tensor:
        """(rows, width) decoding of the k best-scored of some latents, wherever these are."""
        model, kernels = self.dictionary, kernels_for(self.centred.device)
        weight, bias = model.encoder.affine(model.decoder)
        inside = (latents >= self.share.first) & (latents < self.share.first + model.n_latents)
        mine = latents[inside] - self.share.first
        with torch.no_grad():
            few = linear(self.centred, weight[mine], bias[mine])
            scores = model.score(model.heads_of(few, lambda v: v[mine], {}), lambda v: v[mine])
            rows, places = self._best(scores, k)
            support = Support(rows, mine[places], len(few), model.n_latents)
        u = kernels.preactivations(self.centred, self.share.centre(), weight, bias, few[rows, places], support)
        values = model.value(model.heads_of(u, support.at, {}), support.at)
        return total(kernels.decode(values, model.decoder.rows(), support), self.share.world)

    def _best(self, scores: Tensor, k: int) -> tuple[Tensor, Tensor]:
        """Rows and columns of this process's scores that are among the k best of all processes' in their row."""
        world, n = self.share.world, min(k, scores.shape[1])
        best = scores.topk(n, dim=1)
        offered = pad(best.values, (0, k - n), value=-torch.inf)
        every = torch.cat(world.gather(offered[None])).transpose(0, 1).reshape(len(scores), world.size * k)
        won = torch.zeros_like(every, dtype=torch.bool).scatter_(1, every.topk(k, dim=1).indices, True)
        rows, slots = won[:, world.rank * k : world.rank * k + n].nonzero(as_tuple=True)
        return rows, best.indices[rows, slots]


def _refuse_unsliceable(things: Iterable[Part | Objective | Maintainer]) -> None:
    """Raise CapabilityError for the first part, objective or maintainer that does not work on a slice of the
    latents."""
    for thing in things:
        if not thing.sliceable:
            raise CapabilityError(
                f"{type(thing).__name__} does not work on a slice of the latents, so this dictionary cannot be spread "
                "over processes. Split the rows instead (split='rows'), or use another kind, such as top_k."
            )


def _cut(model: Autoencoder, names: set[str], first: int, last: int) -> Autoencoder:
    """Keep a slice of everything that has latents first, in place."""
    for name in names:
        path, _, leaf = name.rpartition(".")
        tensor = getattr(model.get_submodule(path), leaf)
        tensor.data = tensor.data[first:last].clone()
    model.n_latents = last - first
    return model
