"""Each process holds a slice of the latents, for dictionaries that do not fit one device, and sees all rows.

Selection takes two cuts: each process nominates among its latents as if there were no others, then the cut is made
among the nominees of all. Partial reconstructions are added up. Gradients, optimiser and per-latent statistics stay
where the latents are; what all latents share (the constant, input scales) is the same everywhere. The result is that of
one process up to the order of additions.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

import torch
from torch import Tensor
from torch.nn.utils import get_total_norm

from overtone.core.errors import CapabilityError
from overtone.dictionaries.autoencoder import Autoencoder
from overtone.dictionaries.maintainers.base import Maintainer
from overtone.dictionaries.objectives.base import Objective, StepView
from overtone.dictionaries.parts import Part, rebuild
from overtone.dictionaries.slices import Slice
from overtone.training.distributed.exchange import total
from overtone.training.distributed.share import Rows
from overtone.training.distributed.slice_step import Cut, DenseSliceStep, SliceStep, shared_centre
from overtone.training.distributed.world import World
from overtone.training.kernels.choose import SAMPLE, scores_of
from overtone.training.kernels.dense import decode
from overtone.training.kernels.dispatch import kernels_for
from overtone.training.step import Given, dense_values, in_units, takes_dense_way
from overtone.training.surgery import per_latent


class LatentShare:
    """A slice of the latents of a dictionary, which is cut down to it."""

    def __init__(self, whole: Autoencoder, world: World) -> None:
        """Raises CapabilityError if the dictionary has a part that cannot work on a slice, or too few latents."""
        _refuse_unsliceable(part for part in whole.modules() if isinstance(part, Part) and part is not whole)
        self.world, self.n_latents, self.spec, self.origin = world, whole.n_latents, whole.spec(), whole.origin
        self.names = set(per_latent(whole))
        where = Slice(tuple(world.spans(whole.n_latents)), world.rank, world.gather, world.add)
        self.first, self.model = where.first, _cut(whole, self.names, where)
        smallest, needed = self.n_latents // world.size, getattr(whole.selection, "budget", 1)
        if smallest < (needed if whole.selection.latents_compete else 1):
            raise CapabilityError(
                f"{world.size} processes hold {smallest} latents each, fewer than are active in a row. Use fewer "
                "processes, or split the rows instead (split='rows')."
            )
        self.model.selection.widen()  # hints that processes took from their own latents would differ
        self._lists: dict[str, tuple[Tensor, Tensor]] = {}

    def accept(self, objectives: Sequence[Objective], maintainers: Sequence[Maintainer]) -> None:
        """Those that say they are `sliceable` can."""
        _refuse_unsliceable([*objectives, *maintainers])

    def forward(self, given: Given) -> SliceStep | DenseSliceStep:
        """The step on the whole batch, of which this process computes its latents."""
        dense = takes_dense_way(self.model, given) if given.dense is None else given.dense
        inputs, target, centred = in_units(self.model, given)
        cut = Cut(self.model, self.world, centred)
        rows, near = centred[:SAMPLE], {name: part[:SAMPLE] for name, part in _beside(given).items()}
        with torch.no_grad():
            self.model.score.confer(self.model.decoder, self.model.slice)
            self.model.selection.confer(lambda: scores_of(self.model, rows, near), rows)
        return (self._dense if dense else self._sparse)(given, inputs, target, centred, cut)

    def _sparse(self, given: Given, inputs: Tensor, target: Tensor, centred: Tensor, cut: Cut) -> SliceStep:
        model, kernels = self.model, kernels_for(given.x.device)
        chosen = kernels.choose(model, centred, beside=_beside(given), peaks=given.peaks, settle=cut)
        weight, bias = model.encoder.affine(model.decoder)
        centre = shared_centre(model, self.world)
        u = kernels.preactivations(centred, centre, weight, bias, chosen.u, chosen.support)
        heads = model.heads_of(u, chosen.support.at, chosen.sides)
        values = model.value(heads, chosen.support.at)
        x_hat = total(kernels.decode(values, model.decoder.rows(), chosen.support), self.world)
        return SliceStep(
            model, target, x_hat + model.decoder.constant(inputs), centred, cut.joined(values),
            {name: cut.joined(heads[name]) for name in sorted(heads)}, given.dead, given.progress, given.state,
            self.world, chosen, cut.scores, values.detach(), cut,
        )  # fmt: skip

    def _dense(self, given: Given, inputs: Tensor, target: Tensor, centred: Tensor, cut: Cut) -> DenseSliceStep:
        model, centre = self.model, shared_centre(self.model, self.world)
        values, heads = dense_values(model, replace(given, settle=cut), centred, centre, _beside(given))
        x_hat = total(decode(values, model.decoder.rows()), self.world) + model.decoder.constant(inputs)
        return DenseSliceStep(
            model, target, x_hat, centred, values, heads, given.dead, given.progress, given.state, self.world,
            given.norms,
        )  # fmt: skip

    def rows(self, given: Given) -> Rows:
        """All of them."""
        return Rows()

    def block(self, given: Given) -> SliceStep | DenseSliceStep:
        """The step."""
        return self.forward(given)

    def ending(self, given: Given, x_hat: Tensor) -> StepView:
        """A dense step without values."""
        _, target, centred = in_units(self.model, given)
        return DenseSliceStep(
            self.model, target, x_hat, centred, target.new_zeros(0), {}, given.dead, given.progress, given.state,
            self.world, given.norms,
        )  # fmt: skip

    def listed(self, name: str, latents: Tensor) -> Tensor:
        """Those of all processes, by their number in the whole dictionary."""
        known = self._lists.get(name)
        if known is None or known[0] is not latents:  # lists are renewed now and then, by all processes in one step
            known = self._lists[name] = latents, torch.cat(self.world.gather(latents + self.first))
        return known[1]

    def total(self, value: Tensor) -> Tensor:
        """The sum over all processes."""
        return self.world.add(value)

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


def _beside(given: Given) -> dict[str, Tensor]:
    return {} if given.g is None else {"g": given.g}


def _refuse_unsliceable(things: Iterable[Part | Objective | Maintainer]) -> None:
    """Raise CapabilityError for the first part, objective or maintainer that does not work on a slice of the
    latents."""
    for thing in things:
        if not thing.sliceable:
            why = f" ({thing.indivisible})" if thing.indivisible else ""
            raise CapabilityError(
                f"{type(thing).__name__} does not work on a slice of the latents{why}, so this dictionary cannot be "
                "spread over processes. Split the rows instead (split='rows'), or use another kind, such as top_k."
            )


def _cut(model: Autoencoder, names: set[str], where: Slice) -> Autoencoder:
    """Keep a slice of everything that has latents first, in place."""
    for name in names:
        path, _, leaf = name.rpartition(".")
        tensor = getattr(model.get_submodule(path), leaf)
        tensor.data = tensor.data[where.first : where.first + where.size].clone()
    model.place(where)
    return model
