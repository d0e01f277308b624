"""Sparse products with exact gradients, and their implementation in plain torch: work and memory are proportional to
the number of active latents.

Three products carry everything (`Products`): a decode sums decoder rows over the latents of each row; the gradient of
values is an inner product per place; a weight gradient sums states over the rows of each latent, after one sort of the
places by latent that decoder and encoder share. The squared error of a decode has a gradient that is known while it is
made, so both can be had in one pass. Weight gradients can wait for the update (`waiting.py`). None is approximated or
dropped.
"""

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn.functional import embedding_bag

from overtone.dictionaries.codes import Support
from overtone.dictionaries.kernels import memory
from overtone.dictionaries.kernels.trial import Slices
from overtone.dictionaries.kernels.waiting import Sums, waiting

EACH = 6  # places of a latent from which it is faster to go by latents
NEAR = 2**20  # bytes of states that a second cache surely holds
ALSO = 3  # places of a latent within so many states from which it is faster to go by these
BAG = 64  # rows of a matrix that are added up by themselves, so that threads share them
SLICE = 64  # columns of sums at a time; their states stay in a second cache


class Products(Protocol):
    """An implementation of the products; each returns new tensors and knows nothing of gradients."""

    def bags(self, values: Tensor, weight: Tensor, at: Support) -> Tensor:
        """(rows, width): for each row, the sum over its places of value x weight row of the place's latent."""
        ...

    def products(self, states: Tensor, weight: Tensor, at: Support) -> Tensor:
        """(n,) inner products of the state of each place's row with the weight row of its latent."""
        ...

    def sum_by_latent(self, values: Tensor, states: Tensor, at: Support) -> tuple[Tensor, Tensor]:
        """(latents, width): for each latent, the sum over its places of value x state of the place's row; and
        (latents,) the sum of the values alone."""
        ...

    def towards(self, values: Tensor, weight: Tensor, constant: Tensor, target: Tensor, at: Support) -> "Towards":
        """By how much `bags` plus a constant, (width,) or (rows, width), is above a target (rows, width)."""
        ...

    def weighed(
        self, values: Tensor, states: Tensor, lengths: Tensor | None, at: Support
    ) -> tuple[Tensor, float, Tensor] | None:
        """What can be had of `sum_by_latent` without its sums: the (latents,) totals, what the Frobenius norm of the
        sums is at most, and the values by latent. None where sums are not to wait for the update. lengths: (rows,) of
        the states, where known."""
        ...


class Towards(NamedTuple):
    """What `Products.towards` finds. missed: (rows, width); squares: (rows,) the sums of its squares; products: (n,)
    its `products` with the weight, and columns: (width,) its sums over the rows, or None where they do not come for
    little."""

    missed: Tensor
    squares: Tensor
    products: Tensor | None = None
    columns: Tensor | None = None


class Differentiable(NamedTuple):
    """What is made of an implementation's products; signatures and results are those of `reference.py`."""

    preactivations: Callable[..., Tensor]
    decode: Callable[..., Tensor]
    reconstruct: Callable[..., tuple[Tensor, Tensor]]


def differentiable(kernels: Products) -> Differentiable:
    """Functions with gradients, made of these products."""

    def preactivations(
        centred: Tensor, centre: Tensor | float, weight: Tensor, bias: Tensor, u: Tensor, at: Support,
        lengths: Tensor | None = None,
    ) -> Tensor:  # fmt: skip
        """(n,) entries of (x - centre) weight^T + bias at a support, where `centred` (rows, width) = x - centre.

        u: (n,) these values as selection computed them (without gradients); they are passed through, and the gradient
        is that of the dense product for weight, bias and centre. x gets none: states are data. lengths: (rows,) of
        `centred`, where known.
        """
        centre = centre if isinstance(centre, Tensor) else centred.new_zeros(())
        return _PreActivations.apply(kernels, centred, centre, weight, bias, u, at, lengths)

    def decode(values: Tensor, weight: Tensor, at: Support) -> Tensor:
        """(rows, width) product of the sparse matrix that holds `values` at a support with `weight` (latents,
        width)."""
        return _Decode.apply(kernels, values, weight, at)

    def reconstruct(
        values: Tensor, weight: Tensor, constant: Tensor, target: Tensor, at: Support
    ) -> tuple[Tensor, Tensor]:
        """By how much `decode` plus a constant, (width,) or (rows, width), is above a target (rows, width), which is
        data; and () the sum of the squares of that."""
        return _Reconstruct.apply(kernels, values, weight, constant, target, at)

    return Differentiable(preactivations, decode, reconstruct)


class _PreActivations(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, kernels: Products, centred: Tensor, centre: Tensor, weight: Tensor, bias: Tensor, u: Tensor,
        at: Support, lengths: Tensor | None,
    ) -> Tensor:  # fmt: skip
        ctx.save_for_backward(centred, weight)
        ctx.kernels, ctx.at, ctx.waiting, ctx.lengths = kernels, at, waiting(), lengths
        return u.view_as(u)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        centred, weight = ctx.saved_tensors
        of_weight, of_bias = _sums(ctx, grad.contiguous(), centred, weight, ctx.lengths)
        of_centre = -_weighted(ctx.kernels, of_bias, weight) if ctx.needs_input_grad[2] else None
        return None, None, of_centre, of_weight if ctx.needs_input_grad[3] else None, of_bias, None, None, None


def _sums(
    ctx: Any, values: Tensor, states: Tensor, weight: Tensor, lengths: Tensor | None = None
) -> tuple[Tensor | None, Tensor]:
    """`sum_by_latent` as a gradient of a weight and of biases, the former None where it waits. lengths: (rows,) of the
    states, where known."""
    if ctx.waiting is not None and weight in ctx.waiting:
        found = ctx.kernels.weighed(values, states, lengths, ctx.at)
        if found is not None:
            totals, most, ordered = found
            ctx.waiting.add(weight, Sums(ctx.kernels, values, states, ctx.at, most, ordered=ordered))
            return None, totals
    return ctx.kernels.sum_by_latent(values, states, ctx.at)


def _weighted(kernels: Products, values: Tensor, weight: Tensor) -> Tensor:
    """(width,) sum of a matrix's rows, each times its value: on a CPU bags take half the time of torch's product."""
    if weight.device.type != "cpu":
        return values @ weight
    n = len(values)
    places = torch.arange(n)
    return kernels.bags(values, weight, Support(places // BAG, places, -(-n // BAG), n)).sum(0)


class _Decode(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, kernels: Products, values: Tensor, weight: Tensor, at: Support) -> Tensor:
        values = values.contiguous()
        ctx.save_for_backward(values, weight)
        ctx.kernels, ctx.at, ctx.waiting, ctx.lengths = kernels, at, waiting(), None
        return kernels.bags(values, weight, at)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        return None, *_of_decode(ctx, grad.contiguous(), *ctx.saved_tensors), None


class _Reconstruct(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, kernels: Products, values: Tensor, weight: Tensor, constant: Tensor, target: Tensor, at: Support
    ) -> tuple[Tensor, Tensor]:
        values = values.contiguous()
        missed, squares, products, columns = kernels.towards(values, weight, constant, target, at)
        kept = missed.detach()  # an output knows its node; where it waits for the update, that would hold itself
        ctx.save_for_backward(values, weight, kept, products, columns)
        ctx.kernels, ctx.at, ctx.waiting, ctx.shape = kernels, at, waiting(), constant.shape
        ctx.lengths = squares.sqrt()
        ctx.set_materialize_grads(False)
        return missed, squares.sum()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, of_missed: Tensor | None, of_error: Tensor | None) -> tuple[Tensor | None, ...]:
        values, weight, missed, products, columns = ctx.saved_tensors
        if of_missed is not None:
            grad = of_missed if of_error is None else torch.addcmul(of_missed, missed, 2 * of_error)
            ctx.lengths = None
            of_values, of_weight = _of_decode(ctx, grad.contiguous(), values, weight)
            of_constant = grad.sum_to_size(ctx.shape) if ctx.needs_input_grad[3] else None
        elif of_error is not None:  # and nothing else: values are scaled instead of a (rows, width) matrix
            slope = 2 * of_error
            of_values, of_weight = _of_decode(ctx, missed, values * slope, weight, products)
            of_values = None if of_values is None else of_values * slope
            totals = missed if columns is None or len(ctx.shape) == 2 else columns
            of_constant = totals.sum_to_size(ctx.shape) * slope if ctx.needs_input_grad[3] else None
        else:
            return (None,) * 6
        return None, of_values, of_weight, of_constant, None, None


def _of_decode(
    ctx: Any, grad: Tensor, values: Tensor, weight: Tensor, products: Tensor | None = None
) -> tuple[Tensor | None, Tensor | None]:
    """Gradients of a decode's values and weight, if they are needed. products: of `grad` and weight, where known."""
    _, for_values, for_weight, *_ = ctx.needs_input_grad
    if for_values and products is None:
        products = ctx.kernels.products(grad, weight, ctx.at)
    of_weight = _sums(ctx, values, grad, weight, ctx.lengths)[0] if for_weight else None
    return products if for_values else None, of_weight


def squares_of(missed: Tensor) -> Tensor:
    """(rows,) the sums of squares; those of the rows are added up, since one sum over all would lose digits."""
    return torch.linalg.vector_norm(missed, dim=-1).square()


def composed(
    kernels: Products, values: Tensor, weight: Tensor, constant: Tensor, target: Tensor, at: Support
) -> Towards:
    """`Products.towards` of `bags`."""
    missed = kernels.bags(values, weight, at).add_(constant).sub_(target)
    return Towards(missed, squares_of(missed))


def _sampled(states: Tensor, weight: Tensor, at: Support) -> Tensor:
    """The entries of states weight^T at a support, by the operator for products at the places of a sparse matrix: on a
    CPU it is several times faster than the other. Where latents have several places each they are taken one after the
    other, so that a latent's weights are read once; for as many states at a time as stay in the cache, if there are
    enough places for that."""
    block = max(1, NEAR // (states.element_size() * states.shape[1]))
    n = len(at.latents)
    if n < EACH * at.n_latents:
        return _at_places(at.row_starts, at.latents, states, weight)
    if n * block < ALSO * at.n_latents * at.n_rows:
        block = at.n_rows
    found = states.new_empty(n)
    for part, rows, places in at.blocks(block):
        order, columns, starts = part.by_latent
        found[places].scatter_(0, order, _at_places(starts, columns, weight, states[rows]))
    return found


def _at_places(starts: Tensor, columns: Tensor, left: Tensor, right: Tensor) -> Tensor:
    """(n,) entries of left right^T at columns of which those of each row lie together, from `starts` (rows,) on."""
    ends = torch.cat([starts, starts.new_tensor([len(columns)])])
    with _quiet():
        places = torch.sparse_csr_tensor(
            ends, columns, left.new_zeros(len(columns)), (len(left), len(right)), check_invariants=False
        )
        return torch.sparse.sampled_addmm(places, left, right.T, beta=0.0).values()


@contextmanager
def _quiet() -> Iterator[None]:
    """Torch says once in each process that sparse CSR tensors are new."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Sparse CSR tensor support is in beta state", category=UserWarning)
        yield


def _bags(places: Tensor, rows: Tensor, starts: Tensor, values: Tensor) -> Tensor:
    """(n, width) sums of value x row over the places from each of (n,) starts on, without gradients."""
    return embedding_bag(places, rows.detach(), starts, per_sample_weights=values.detach(), mode="sum")


def _may_be_sliced(n_rows: int, width: int, places: int) -> bool:
    """Whether sums by latent, slice by slice, are worth a trial: rows do not stay in the second cache as a whole."""
    return 4 * n_rows * width > NEAR >= 2 * n_rows * SLICE and width > SLICE and places > 4 * n_rows


class Torch:
    """The three products in plain torch."""

    def __init__(self) -> None:
        self.slices = Slices(_may_be_sliced)

    def bags(self, values: Tensor, weight: Tensor, at: Support) -> Tensor:
        """As in `Products`."""
        return _bags(at.latents, weight, at.row_starts, values)

    def products(self, states: Tensor, weight: Tensor, at: Support) -> Tensor:
        """As in `Products`."""
        if states.device.type == "cpu" and states.dtype == weight.dtype in (torch.float32, torch.float64):
            return _sampled(states, weight, at)
        # The operator that torch differentiates embedding_bag's weights with is exactly this product, without gathering
        # rows.
        backward = torch.ops.aten._embedding_bag_per_sample_weights_backward
        return backward(states, weight, at.latents, at.row_starts, at.rows, 0, -1)

    def sum_by_latent(self, values: Tensor, states: Tensor, at: Support) -> tuple[Tensor, Tensor]:
        """As in `Products`."""
        order, rows, starts = at.by_latent
        sorted_values = values.index_select(0, order)
        totals = torch.zeros(at.n_latents, dtype=values.dtype, device=values.device)
        (n_rows, width), is_usual = states.shape, states.device.type == "cpu" and states.dtype == torch.float32
        with self.slices.way("sums", n_rows, width, len(values) if is_usual else 0) as by_slice:
            if by_slice:
                sums = memory.take(at.n_latents, width)
                for part, of_part in zip(states.split(SLICE, dim=1), sums.split(SLICE, dim=1), strict=True):
                    of_part.copy_(_bags(rows, part.contiguous(), starts, sorted_values))
            else:
                sums = _bags(rows, states, starts, sorted_values)
        return sums, totals.index_add_(0, at.latents, values)

    def towards(self, values: Tensor, weight: Tensor, constant: Tensor, target: Tensor, at: Support) -> Towards:
        """As in `Products`."""
        return composed(self, values, weight, constant, target, at)

    def weighed(self, values: Tensor, states: Tensor, lengths: Tensor | None, at: Support) -> None:
        """As in `Products`: they do not wait."""


TORCH = Torch()
FUNCTIONS = preactivations, decode, reconstruct = differentiable(TORCH)
