"""Each process holds a slice of the latents, for dictionaries that do not fit one device, and sees all rows.

Selection takes two cuts: each process nominates among its latents as if there were no others, then the cut is made
among the nominees of all. Partial reconstructions are added up. Gradients, optimiser and per-latent statistics stay
where the latents are; what all latents share (the constant, input scales) is the same everywhere. The result is that of
one process up to the order of additions.

No process has more than its slice at any time: dictionaries are made slice by slice where their preset allows it
(`dictionaries/starts`), checkpoints go to the first process's file, and come from it, block by block. At the end the
first one puts the dictionary together, tensor by tensor.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from overtone.core.errors import CapabilityError
from overtone.core.memory import give_back
from overtone.core.tensor_files import Blocks, Readable
from overtone.dictionaries.autoencoder import Autoencoder
from overtone.dictionaries.dictionary import Dictionary
from overtone.dictionaries.kernels.choose import SAMPLE, scores_of
from overtone.dictionaries.kernels.dense import decode
from overtone.dictionaries.kernels.dispatch import kernels_for
from overtone.dictionaries.kernels.update import Moments
from overtone.dictionaries.maintainers.base import Maintainer
from overtone.dictionaries.objectives.base import Objective, StepView
from overtone.dictionaries.parts import Part, rebuild
from overtone.dictionaries.slices import Slice
from overtone.training.adam import norm_of
from overtone.training.distributed.elsewhere import Elsewhere
from overtone.training.distributed.exchange import total
from overtone.training.distributed.share import Rows
from overtone.training.distributed.slice_step import Cut, DenseSliceStep, SliceStep, shared_centre
from overtone.training.distributed.world import World
from overtone.training.step import Given, dense_values, in_units, takes_dense_way
from overtone.training.surgery import per_latent


class LatentShare:
    """A slice of the latents of a dictionary, which is cut down to it where it was made whole."""

    alone = False

    def __init__(self, model: Autoencoder, world: World) -> None:
        """model: whole, or made inside `slices.making`. Raises CapabilityError if the dictionary has a part that cannot
        work on a slice, or too few latents."""
        _refuse_unsliceable(part for part in model.modules() if isinstance(part, Part) and part is not model)
        self.world, self.n_latents = world, model.slice.n_latents
        self.names = set(per_latent(model))
        where = slice_of(world, self.n_latents)
        self.first, self.model = where.first, _cut(model, self.names, where)
        self._rows, self._listing = set[str](), set[str]()
        smallest, needed = self.n_latents // world.size, getattr(model.selection, "budget", 1)
        if smallest < (needed if model.selection.latents_compete else 1):
            raise CapabilityError(
                f"{world.size} processes hold {smallest} latents each, fewer than are active in a row. Use fewer "
                "processes, or split the rows instead (--split rows, in Python split='rows')."
            )
        self.model.selection.widen()  # hints that processes took from their own latents would differ
        self._lists: dict[str, tuple[Tensor, Tensor]] = {}

    def accept(self, objectives: Sequence[Objective], maintainers: Sequence[Maintainer]) -> None:
        """Those that say they are `sliceable` can."""
        _refuse_unsliceable([*objectives, *maintainers])
        self._rows = {f"{kind}.{name}" for kind in ("model", "moments.mean", "moments.square") for name in self.names}
        self._rows |= {f"maintainer.{i}.{key}" for i, m in enumerate(maintainers) for key in m.per_latent}
        self._listing = {f"maintainer.{i}.{key}" for i, m in enumerate(maintainers) for key in m.lists}

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
            model, target, x_hat + model.decoder.constant(inputs) - target, centred, cut.joined(values),
            {name: cut.joined(heads[name]) for name in sorted(heads)}, given.dead, given.progress, given.state,
            self.world, chosen, cut.scores, values.detach(), cut,
        )  # fmt: skip

    def _dense(self, given: Given, inputs: Tensor, target: Tensor, centred: Tensor, cut: Cut) -> DenseSliceStep:
        model, centre = self.model, shared_centre(self.model, self.world)
        values, heads = dense_values(model, replace(given, settle=cut), centred, centre, _beside(given))
        x_hat = total(decode(values, model.decoder.rows()), self.world) + model.decoder.constant(inputs)
        return DenseSliceStep(
            model, target, x_hat - target, centred, values, heads, given.dead, given.progress, given.state, self.world,
            given.norms,
        )  # fmt: skip

    def rows(self, given: Given) -> Rows:
        """All of them."""
        return Rows()

    def block(self, given: Given) -> SliceStep | DenseSliceStep:
        """The step."""
        return self.forward(given)

    def ending(self, given: Given, missed: Tensor) -> StepView:
        """A dense step without values."""
        _, target, centred = in_units(self.model, given)
        return DenseSliceStep(
            self.model, target, missed, centred, target.new_zeros(0), {}, given.dead, given.progress, given.state,
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

    def norm(self, moments: Mapping[str, Moments]) -> Tensor:
        """The norm over all latents; what they share counts once."""
        sliced = norm_of({name: one for name, one in moments.items() if name in self.names})
        shared = norm_of({name: one for name, one in moments.items() if name not in self.names})
        return (self.world.add(sliced.square()) + shared.square()).sqrt()

    def mean_over_latents(self, value: float) -> float:
        """The mean over all processes' latents."""
        mine = torch.tensor(value * self.model.n_latents, dtype=torch.float64)
        return float(self.world.add(mine)) / self.n_latents

    def whole(self, tensors: Mapping[str, Tensor]) -> dict[str, Blocks]:
        """The tensors of all slices put together, for the first process to see; latents first, or listed by number."""
        sizes, found = self._sizes(), {}
        for name in sorted(tensors):
            tensor = tensors[name] + self.first if name in self._listing else tensors[name]
            counts = self.world.lengths(tensor) if name in self._listing else sizes
            if name in self._rows | self._listing:
                shape = (sum(counts), *tensor.shape[1:])
                found[name] = Blocks(tensor.dtype, shape, self.world.to_first(tensor, counts))
            else:
                found[name] = Blocks.of(tensor)
        return found

    def own(self, name: str, stored: Readable) -> Tensor:
        """This slice of what `whole` gave."""
        if name in self._rows:
            return stored[self.first : self.first + self.model.n_latents]
        return self.model.slice.inside(stored[...]) if name in self._listing else stored[...]

    def dictionary(self) -> Dictionary:
        """The whole dictionary on the first process's CPU, an `Elsewhere` on the others. One tensor after the other is
        put together, and each process lets go of its slice of it."""
        model = self.model.cpu()
        give_back()  # what moments have left must not lie beside the whole
        for name in sorted(self.names):
            tensor = _tensor(model, name)
            whole = tensor.new_empty(self.n_latents if self.world.first else 0, *tensor.shape[1:])
            filled = 0
            for block in self.world.to_first(tensor.data, self._sizes()):
                whole[filled : filled + len(block)] = block
                filled += len(block)
            tensor.data = whole
        if not self.world.first:
            return Elsewhere(model.width, self.n_latents, model.width_out, model.origin, str(self.world))
        model.place(Slice.all(self.n_latents))
        with torch.device("meta"):  # a new one, without what training keeps beside parameters, and no memory for zeros
            found = rebuild(model.spec())
        found.load_state_dict(model.state_dict(), assign=True)
        found.origin = model.origin
        return found

    def _sizes(self) -> list[int]:
        return [last - first for first, last in self.model.slice.spans]


def slice_of(world: World, n_latents: int) -> Slice:
    """The latents of this process, of so many."""
    return Slice(tuple(world.spans(n_latents)), world.rank, world.gather, world.add)


def _beside(given: Given) -> dict[str, Tensor]:
    return {} if given.g is None else {"g": given.g}


def _refuse_unsliceable(things: Iterable[Part | Objective | Maintainer]) -> None:
    """Raise CapabilityError for the first part, objective or maintainer that does not work on a slice of the
    latents."""
    for thing in things:
        if not thing.sliceable:
            why = f" ({thing.indivisible})" if thing.indivisible else ""
            raise CapabilityError(
                f"the latents of this kind of dictionary cannot be spread over processes: {type(thing).__name__} does "
                f"not work on a slice of them{why}. Split the rows instead (--split rows, in Python split='rows'), or "
                "use another kind, such as top_k."
            )


def _cut(model: Autoencoder, names: set[str], where: Slice) -> Autoencoder:
    """Keep a slice of everything that has latents first and was made whole, in place."""
    for name in names:
        tensor = _tensor(model, name)
        if len(tensor) != where.size:
            tensor.data = tensor.data[where.first : where.first + where.size].clone()
    model.place(where)
    return model


def _tensor(model: Autoencoder, name: str) -> Tensor:
    """The parameter or buffer of a name."""
    path, _, leaf = name.rpartition(".")
    return getattr(model.get_submodule(path), leaf)
