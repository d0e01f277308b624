"""One training step's forward pass: selection without gradients, then exact sparse values with gradients.

Where more than a tenth of the latents are active (a rectifier before its penalty bites) the dense products are faster;
the step then takes them. Which way it goes is decided on the batch itself, so that a resumed run decides the same.
Objectives that look at latents which were not selected take the dense way always.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor
from torch.func import functional_call
from torch.nn.functional import linear

from overtone.core.errors import CapabilityError
from overtone.dictionaries.autoencoder import Autoencoder
from overtone.dictionaries.choice import Chosen, Settle, everywhere
from overtone.dictionaries.codes import SparseCodes, Support, positions
from overtone.dictionaries.encoders.base import Heads
from overtone.dictionaries.kernels import dense
from overtone.dictionaries.kernels.dispatch import Kernels, kernels_for
from overtone.dictionaries.kernels.waiting import rows_of
from overtone.dictionaries.objectives.reconstruction import total_of_squares
from overtone.dictionaries.selectors.rank import top_indices, top_mask

DENSE_FROM = 0.1  # share of active latents from which dense products are faster
DENSE_WITH = 5  # times as many latents as are decoded of them, up to which dense products are faster
PROBED = 64  # rows on which that share is measured


@dataclass(frozen=True, eq=False)
class Given:
    """What a training step is given beside the dictionary.

    x: (rows, width) raw states; y: (rows, width_out) raw targets, for transcoders; g: (rows, width) gradients of a loss
    with respect to the states, where asked for; dead, progress, state: as in StepView; all_latents: objectives look at
    latents that are not selected; peaks: maintainers want the largest pre-activations.
    norms, affine: the lengths of the decoder's rows, and the encoder's matrix and bias, where they are known already.
    Where several processes share a batch: settle, what makes the cut among the nominees of all of them; dense, whether
    all of them take the dense way; first, the number of this one's first row. `dense` and `first` also serve where a
    batch is cut into blocks.
    """

    x: Tensor
    dead: Tensor
    progress: float
    y: Tensor | None = None
    g: Tensor | None = None
    state: Mapping[str, Tensor] = field(default_factory=dict)
    all_latents: bool = False
    peaks: bool = False
    settle: Settle | None = None
    dense: bool | None = None
    first: int = 0
    norms: Tensor | None = None
    affine: tuple[Tensor, Tensor] | None = None


@dataclass(eq=False)
class StepFields:
    """What steps of all kinds hold; see `overtone.dictionaries.objectives.base.StepView` for the fields."""

    dictionary: Autoencoder
    x: Tensor
    missed: Tensor
    centred: Tensor
    values: Tensor
    heads: Heads
    dead: Tensor
    progress: float
    state: Mapping[str, Tensor]

    @property
    def squared_error(self) -> Tensor:
        """() ||x_hat - x||^2 over all rows, with gradients."""
        return total_of_squares(self.missed)


@dataclass(eq=False)
class OfAllLatents(StepFields):
    """What a step answers whose dictionary is whole. chosen: the active places and their pre-activations, None after a
    dense pass."""

    chosen: Chosen | None
    scores: Tensor | None = field(default=None, init=False)  # no others choose with this process

    @property
    def dense(self) -> bool:
        """Whether values and heads are (rows, latents)."""
        return self.chosen is None

    @property
    def centre(self) -> Tensor | float:
        """What was subtracted before encoding."""
        return self.dictionary.centre()

    def everyones(self, part: Tensor) -> Tensor:
        """The part: all latents are here."""
        return part

    def at(self, vector: Tensor) -> Tensor:
        """A (latents,) vector in the layout of the values."""
        return vector if self.chosen is None else self.chosen.support.at(vector)

    @property
    def latents(self) -> Tensor:
        """The latent of each value."""
        if self.chosen is None:
            return torch.arange(self.values.shape[1], device=self.values.device).unsqueeze(0)
        return self.chosen.support.latents

    def summed(self, values: Tensor) -> Tensor:
        """(rows,) sums over each row's latents; see StepView."""
        if self.chosen is None:
            return values.sum(1)
        support = self.chosen.support
        return values.new_zeros(support.n_rows).index_add(0, support.rows, values)

    def total(self, values: Tensor) -> Tensor:
        """() sum over all places."""
        return values.sum()


@dataclass(eq=False)
class Step(OfAllLatents):
    """The forward pass of one step. inputs: the states in the dictionary's units; known_norms, known_error: `norms` and
    `squared_error`, where they are known."""

    inputs: Tensor
    known_norms: Tensor | None = None
    known_error: Tensor | None = None

    @property
    def squared_error(self) -> Tensor:
        """() ||x_hat - x||^2 over all rows, with gradients."""
        return super().squared_error if self.known_error is None else self.known_error

    @property
    def norms(self) -> Tensor:
        """(latents,) lengths of the decoder's rows, with gradients."""
        return self.dictionary.decoder.norms() if self.known_norms is None else self.known_norms

    @property
    def kernels(self) -> Kernels:
        """What computes the sparse products."""
        return kernels_for(self.centred.device)

    @torch.no_grad()
    def counts(self) -> Tensor:
        """(latents,) int32: in how many rows of this batch each latent is active."""
        if self.chosen is None:
            return active_rows(self.values, None)
        return (distinct_rows if self.dictionary.encoder.unrolled else active_rows)(self.values, self.chosen.support)

    def decoded(self, values: Tensor, keep: Tensor | None = None, *, frozen: bool = False) -> Tensor:
        """(rows, width) decoding, without the constant, of other values in the same layout; see StepView."""
        if not self.dictionary.decoder.linear:
            return self._decoded_nonlinearly(values if keep is None else values * keep, frozen)
        weight = self.dictionary.decoder.rows().detach() if frozen else self.dictionary.decoder.rows()
        if self.chosen is None:
            return dense.decode(values if keep is None else values * keep, weight)
        if keep is None:
            return self.kernels.decode(values, weight, self.chosen.support)
        which = positions(keep)
        return self.kernels.decode(values.index_select(0, which), weight, self.chosen.support.taken(which))

    def _decoded_nonlinearly(self, values: Tensor, frozen: bool) -> Tensor:
        decoder = self.dictionary.decoder
        codes = SparseCodes.from_dense(values) if self.chosen is None else self.chosen.support.codes(values)
        parameters = {name: p.detach() if frozen else p for name, p in decoder.named_parameters()}
        constant = decoder.constant(self.inputs)
        return functional_call(decoder, parameters, (codes, self.inputs)) - (constant.detach() if frozen else constant)

    def decoded_from(self, latents: Tensor, k: int) -> Tensor:
        """(rows, width) decoding, without the constant, of the k best-scored of some latents in each row."""
        model = self.dictionary
        if model.decoder.linear and densely_from(latents, k):
            among = None if k >= len(latents) else lambda scores: top_mask(scores, k)
            return decoded_densely(model, self.centred, model.centre(), latents, among)
        weight, bias = model.encoder.affine(model.decoder)
        with torch.no_grad():
            few = dense.product(self.centred, weight[latents]).add_(bias[latents])
            heads = model.heads_of(few, lambda vector: vector[latents], {})
            best = top_indices(model.score(heads, lambda vector: vector[latents]), k)
            support = Support.from_indices(latents[best], model.n_latents)
        u = self.kernels.preactivations(
            self.centred, model.centre(), weight, bias, few.gather(1, best).view(-1), support
        )
        values = model.value(model.heads_of(u, support.at, {}), support.at)
        if not model.decoder.linear:
            return model.decoder(support.codes(values), self.inputs) - model.decoder.constant(self.inputs)
        return self.kernels.decode(values, model.decoder.rows(), support)


def densely_from(latents: Tensor, k: int) -> bool:
    """Whether the k best of some latents in each row are decoded by dense products."""
    return len(latents) <= DENSE_WITH * k


def decoded_densely(
    model: Autoencoder, centred: Tensor, centre: Tensor | float, latents: Tensor,
    among: Callable[[Tensor], Tensor] | None,
) -> Tensor:  # fmt: skip
    """(rows, width) decoding, without the constant, of some latents by dense products with their rows, with gradients.

    centred: (rows, width) states less the centre, which is named beside them for its gradient; among: from (rows, n)
    scores of these latents a mask of the places that are decoded, None for all.
    """

    def at(vector: Tensor) -> Tensor:
        return vector.index_select(0, latents)

    weight, bias = model.encoder.affine(model.decoder)
    heads = model.heads_of(dense.preactivations(centred, centre, rows_of(weight, latents), at(bias)), at, {})
    values = model.value(heads, at)
    if among is not None:
        with torch.no_grad():
            chosen = among(model.score(heads, at))
        values = values * chosen
    return dense.decode(values, rows_of(model.decoder.rows(), latents))


def ending(dictionary: Autoencoder, given: Given, missed: Tensor) -> Step:
    """The step of a whole batch without its values, for terms that need none."""
    inputs, target, centred = in_units(dictionary, given)
    return Step(
        dictionary, target, missed, centred, target.new_zeros(0), {}, given.dead, given.progress, given.state, None,
        inputs, given.norms,
    )  # fmt: skip


def active_rows(values: Tensor, support: Support | None) -> Tensor:
    """(latents,) int32: in how many rows each latent is active, from values at a support or, where that is None, of all
    places."""
    if support is None:
        array = _array(values)
        if array is None:
            return values.detach().sign().abs_().sum(0).int()  # cheaper than comparing with 0
        return torch.from_numpy((array != 0).sum(0, dtype=np.int32))
    array = _array(values)
    if array is not None and np.count_nonzero(array) == array.size and (held := support.held()) is not None:
        return held
    counts = torch.zeros(support.n_latents, dtype=torch.int32, device=values.device)
    return counts.index_add_(0, support.latents, (values.detach() != 0).int())


def distinct_rows(values: Tensor, support: Support) -> Tensor:
    """The same for a support that may hold a latent several times in a row, as that of a pursuit does: once each."""
    assert support.per_row is not None
    nowhere = support.n_latents
    latents = support.latents.masked_fill(values.detach() == 0, nowhere).view(support.n_rows, support.per_row)
    latents = latents.sort(dim=1).values
    first = torch.ones_like(latents, dtype=torch.int32)
    first[:, 1:] = (latents[:, 1:] != latents[:, :-1]).int()
    counts = torch.zeros(nowhere + 1, dtype=torch.int32, device=values.device)
    return counts.index_add_(0, latents.view(-1), first.view(-1))[:nowhere]


def forward(dictionary: Autoencoder, given: Given) -> Step:
    """The step of a dictionary on raw states."""
    inputs, target, centred = in_units(dictionary, given)
    beside = {} if given.g is None else {"g": given.g}
    if given.all_latents and dictionary.encoder.unrolled:
        raise CapabilityError(
            "an unrolled encoder has no pre-activations of latents that it did not choose. Leave out objectives with "
            "needs_all."
        )
    if takes_dense_way(dictionary, given) if given.dense is None else given.dense:
        return _dense(dictionary, given, inputs, target, centred, beside)
    chosen = kernels_for(centred.device).choose(
        dictionary, centred, beside=beside, peaks=given.peaks, settle=given.settle, first=given.first,
        product=dense.product,
    )  # fmt: skip
    return _sparse(dictionary, given, inputs, target, centred, chosen)


@torch.no_grad()
def in_units(dictionary: Autoencoder, given: Given) -> tuple[Tensor, Tensor, Tensor]:
    """States, what is to be reconstructed, and states less the centre, in the dictionary's units."""
    inputs, centred = kernels_for(given.x.device).in_units(dictionary.normaliser, given.x, dictionary.centre())
    target = inputs if dictionary.target is None else dictionary.target(dictionary.checked_targets(given.y))
    return inputs, target, centred


@torch.no_grad()
def takes_dense_way(dictionary: Autoencoder, given: Given) -> bool:
    """Whether the step takes dense products: because objectives look at all latents, or because a selection without a
    budget leaves many latents active in some of the rows. Where latents are spread over processes, these ask it
    together."""
    if given.all_latents or dictionary.selection.has_budget:
        return given.all_latents
    centred = dictionary.normaliser(given.x[:PROBED]) - dictionary.centre()
    u = linear(centred, *dictionary.encoder.affine(dictionary.decoder))
    heads = dictionary.heads_of(u, everywhere, {})
    active = dictionary.selection.mask(dictionary.score(heads, everywhere)).sum()
    return int(dictionary.slice.total(active)) >= DENSE_FROM * len(centred) * dictionary.slice.n_latents


def _sparse(model: Autoencoder, given: Given, inputs: Tensor, target: Tensor, centred: Tensor, chosen: Chosen) -> Step:
    support, kernels = chosen.support, kernels_for(centred.device)
    if model.encoder.unrolled:
        u = model.encoder.replay(inputs - model.centre(), model.decoder, support)
    else:
        weight, bias = model.encoder.affine(model.decoder)
        u = kernels.preactivations(centred, model.centre(), weight, bias, chosen.u, support, chosen.lengths)
    heads = model.heads_of(u, support.at, chosen.sides)
    values = model.value(heads, support.at)
    if model.decoder.linear:
        constant = model.decoder.constant(inputs)
        missed, error = kernels.reconstruct(values, model.decoder.rows(), constant, target, support)
    else:
        missed, error = model.decoder(support.codes(values), inputs) - target, None
    return Step(
        model, target, missed, centred, values, heads, given.dead, given.progress, given.state, chosen, inputs, None,
        error,
    )  # fmt: skip


def _dense(
    model: Autoencoder, given: Given, inputs: Tensor, target: Tensor, centred: Tensor, beside: Mapping[str, Tensor]
) -> Step:
    values, heads = dense_values(model, given, centred, model.centre(), beside)
    if model.decoder.linear:
        x_hat = dense.decode(values, model.decoder.rows()) + model.decoder.constant(inputs)
    else:
        x_hat = model.decoder(SparseCodes.from_dense(values), inputs)
    return Step(
        model, target, x_hat - target, centred, values, heads, given.dead, given.progress, given.state, None, inputs,
        given.norms,
    )  # fmt: skip


def dense_values(
    model: Autoencoder, given: Given, centred: Tensor, centre: Tensor | float, beside: Mapping[str, Tensor]
) -> tuple[Tensor, Heads]:
    """(rows, latents) values and heads of a dense pass."""
    u = dense.preactivations(centred, centre, *(given.affine or model.encoder.affine(model.decoder)))
    sides = {**model.score.sides(model.decoder, beside), **model.value.sides(given.first, *u.shape)}
    heads = {**model.heads_of(u, everywhere, sides), **model.encoder.dense_heads(centred)}
    values = model.value(heads, everywhere)
    with torch.no_grad():
        mask = _mask(model, model.score(heads, everywhere), centred, given.settle)
    return (values * mask if _reaches_beyond(values.detach(), mask) else values), heads


def _reaches_beyond(values: Tensor, mask: Tensor) -> bool:
    """Whether some value outside of a mask is not 0: mostly none is, and a large matrix is saved. An accelerator is not
    asked, so that it need not wait."""
    if values.device.type != "cpu":
        return True
    if (array := _array(values)) is not None:
        return bool(((array != 0) > mask.numpy()).any())
    return bool((values != 0).logical_and_(mask.logical_not()).any())


def _array(values: Tensor) -> np.ndarray | None:
    """The same for numpy, which compares several times as fast; None where it has no such numbers."""
    known = values.device.type == "cpu" and values.dtype in (torch.float32, torch.float64)
    return values.detach().numpy() if known else None


def _mask(model: Autoencoder, scores: Tensor, centred: Tensor, settle: Settle | None) -> Tensor:
    """Boolean (rows, latents): the active places, rows in company."""
    if not model.selection.has_budget:
        return model.selection.mask(scores)
    support = model.selection.nominate(scores, company=True, states=centred)
    if settle is not None or model.selection.rows_compete:
        keep = (settle or model.selection.settle)(support, support.take(scores))
        if keep is None:
            model.selection.widen()
            return _mask(model, scores, centred, settle)
        support = support.kept(keep)
    mask = torch.zeros_like(scores, dtype=torch.bool)
    return mask.index_put_((support.rows, support.latents), torch.ones((), dtype=torch.bool, device=mask.device))
