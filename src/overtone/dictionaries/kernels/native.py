"""The kernels of the C files beside this one, on torch tensors: float32 on a CPU. Other dtypes take `sparse.py`.

Besides the sparse products, `select` is the encoder's product and the selection in one pass that keeps no
(rows, latents) matrix. Where the processor multiplies int8 or bf16 numbers, these nominate; the choice is exact all the
same, as far as their bounds hold: see the head of `choose.c`. int8 is left for a while where its bounds leave too many
scores to be made in float32.
"""

import ctypes
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

import torch
from torch import Tensor
from torch.utils.weak import WeakTensorKeyDictionary

from overtone.dictionaries.choice import Chosen
from overtone.dictionaries.codes import Support
from overtone.dictionaries.kernels import compiler, memory, sparse, threads
from overtone.dictionaries.kernels.compiler import BuildError
from overtone.dictionaries.kernels.native_rows import NativeRows
from overtone.dictionaries.kernels.native_slices import packed, sliced
from overtone.dictionaries.kernels.nominees import NOMINEES, Rest
from overtone.dictionaries.kernels.served import served
from overtone.dictionaries.selectors.base import Boost, Rule

LEVELS = ("portable C", "AVX2", "AVX-512")
MACHINE = "-march=native"
ROOM = 1024  # places of a row's list where no k bounds them, or an eighth of the latents
WIDEST = 2**16  # states for int8, whose sums have 32 bits
FEW = 1 / 16  # share of latents to score in float32 up to which int8 is faster than bf16
UNUSUAL = -2  # what `ot_choose` returns where rows must be brought to their length beforehand
GRAIN = 64  # rows or latents that are worth a thread
AMX = 4  # what a kind of the library has more where matrix registers make the products

Found = TypeVar("Found")

_I, _P, _F = ctypes.c_int64, ctypes.c_void_p, ctypes.c_float
_SIGNATURES = {
    "ot_level": (_I, []),
    "ot_kinds": (_I, []),
    "ot_packed_bytes": (_I, [_I, _I, _I]),
    "ot_panels": (_I, [_I]),
    "ot_padded": (_I, [_I]),
    "ot_grid": (None, [_P, _I, _P, _I, _I, ctypes.c_uint64, _P]),
    "ot_pack": (_I, [_I, _P, _I, _I, _P, _I, _I, _P, _P]),
    "ot_work_bytes": (_I, [_I] * 6),
    "ot_choose": (_I, [_I, _I, _I, _I, *[_P] * 10, _F, _P, _P, _I, _F, _I, _I, _I, *[_P] * 8]),
    "ot_decode": (None, [_P, _P, _P, _P, _I, _I, _I, _I, _I, _P]),
    "ot_products": (None, [_P, _P, _P, _P, _I, _I, _I, _I, _I, _P]),
    "ot_towards": (None, [_P, _P, _P, _P, _I, _I, _I, _I, _I, _P, _I, *[_P] * 5]),
    "ot_weigh_by_latent": (ctypes.c_double, [*[_P] * 5, _I, _I, _I, _I, _P, _P]),
    "ot_by_latent": (None, [_P, _P, _I, _I, _P, _P, _P]),
    "ot_sum_by_latent": (None, [*[_P] * 5, *[_I] * 6, _P, _P, _P]),
}


@dataclass(eq=False)
class _Packed:
    """A weight for the kernel: norms of its rows, the (4, width) grid of int8, its packed form of some kind."""

    norms: Tensor
    grid: Tensor
    kind: int = -1
    cells: Tensor = field(default_factory=lambda: torch.empty(0))

    def pointers(self, states: Tensor, weight: Tensor) -> list[int]:
        """A product as `ot_choose` wants it."""
        return [t.data_ptr() for t in (states, weight, self.cells, self.norms, self.grid)]


@dataclass(eq=False)
class _Kept:
    """What is kept for an encoder's weight between steps: it and the weight of boosts, packed, how many places a batch
    has had, when int8 rests, and about what scores were chosen, by what they were chosen by."""

    packed: _Packed
    boost: _Packed | None = None
    size: int = 0
    rest: Rest = field(default_factory=Rest)
    hints: dict[tuple[object, ...], Tensor] = field(default_factory=dict)

    def kind(self, kinds: list[int], width: int) -> int:
        """Which of some kinds of nomination is due."""
        resting = self.rest.due() or width > WIDEST
        return kinds[-2] if resting and len(kinds) > 1 else kinds[-1]


class Native:
    """The compiled library for some compiler options. nominees: one of NOMINEES, None for the fastest one. Raises
    BuildError if it cannot be had."""

    def __init__(self, *options: str, nominees: str | None = None) -> None:
        self.library = compiler.load(options)
        for name, (result, arguments) in _SIGNATURES.items():
            function = getattr(self.library, name)
            function.restype, function.argtypes = result, arguments
        self.level, has = int(self.library.ot_level()), int(self.library.ot_kinds())
        fastest = {}
        for kind in range(has.bit_length()):
            if has >> kind & 1 and nominees in (None, digits(kind)):
                fastest[digits(kind)] = kind
        self.kinds = [fastest[name] for name in NOMINEES if name in fastest]
        if not self.kinds:
            raise BuildError(f"this processor has no instructions for {nominees} products")
        self.drawn = 0  # grids, from whose number the noise of the next one follows
        self.whole_rows, self.scored = 0, 0  # rows computed as a whole, and products made in float32, since the start
        self.kept = WeakTensorKeyDictionary()
        memory.ON_RELEASE.append(self.kept.clear)
        self.slices = sliced(self.library)
        self.rows = NativeRows(self.library)
        self.functions = sparse.differentiable(self)
        self.preactivations, self.decode, self.reconstruct = self.functions

    @property
    def amx(self) -> int:
        """AMX, if matrix registers nominate, else 0."""
        return self.kinds[-1] & AMX

    @property
    def name(self) -> str:
        """For logs."""
        fastest = self.kinds[-1]
        nominees = f", {digits(fastest)} nominees{' by AMX' if self.amx else ''}" if fastest else ""
        return f"compiled ({LEVELS[self.level]}{nominees})"

    # ------------------------------------------------------------------------------------------------------ selection
    def select(self, centred: Tensor, weight: Tensor, bias: Tensor, rule: Rule, two_sided: bool) -> Chosen:
        """As in `choose.Select`."""
        boost = rule.boost
        kept = self._kept(weight, centred, boost)
        if boost is not None and boost.length is not None and digits(kept.packed.kind) != "int8":
            boost = replace(boost, rows=self.rows.of_length(boost.rows, boost.length), length=None)
        shift = None if rule.shift is None else rule.shift.float().contiguous()
        n_latents, width = weight.shape
        room = rule.k + rule.k // 2 + 16 if rule.k else min(max(ROOM, n_latents // 8), n_latents + 1)

        by = rule.k, two_sided, rule.boost is None
        known = kept.hints.get(by, torch.tensor([-torch.inf, 0.0]))

        def part(first: int, last: int) -> list[Tensor]:
            rows, hint = centred[first:last], known.clone()
            counts, tally = torch.empty(len(rows), dtype=torch.int64), torch.zeros(2, dtype=torch.int64)
            lengths = torch.empty(len(rows))
            products = kept.packed.pointers(rows, weight)
            if boost is not None and kept.boost is not None:
                products += kept.boost.pointers(boost.rows[first:last], boost.weight)
            length = 0.0 if boost is None or boost.length is None else abs(float(boost.length))
            likely = kept.size // len(centred) * len(rows) if kept.size else len(rows) * (n_latents // 16)
            size = len(rows) * rule.k or min(len(rows) * n_latents, likely + 64 * ROOM)
            shape = kept.packed.kind, len(rows), width, n_latents
            needed = self.library.ot_work_bytes(*shape, room, rule.boost is not None)
            work = memory.take(-(-needed // memory.SMALL), memory.SMALL // 4)  # of few sizes, so that it is used again
            while True:
                latents, u = torch.empty(size, dtype=torch.int64), torch.empty(size)
                boosts = torch.empty(0 if rule.boost is None else size)
                found = self.library.ot_choose(
                    *shape, *products, *[None] * (10 - len(products)), length,
                    bias.data_ptr(), _pointer(shift), rule.k, rule.floor, two_sided, room, size,
                    *(out.data_ptr() for out in (hint, latents, u, boosts, counts, lengths, tally, work)),
                )  # fmt: skip
                if found >= 0:
                    return [latents[:found], u[:found], boosts[:found], counts, lengths, tally, hint]
                if found == UNUSUAL and boost is not None and kept.boost is not None:
                    products[5:], length = kept.boost.pointers(boost.states[first:last], boost.weight), 0.0
                else:
                    size = min(2 * size, len(rows) * n_latents)

        parts = threads.over(len(centred), GRAIN, part)
        latents, u, boosts, counts, lengths = (_joined(list(found)) for found in list(zip(*parts, strict=True))[:5])
        whole, scored = torch.stack([p[5] for p in parts]).sum(0).tolist()
        self.whole_rows, self.scored, kept.size = self.whole_rows + whole, self.scored + scored, int(1.2 * len(u))
        kept.hints[by] = parts[0][6]
        if digits(kept.packed.kind) == "int8":
            products = 1 if rule.boost is None else 2
            kept.rest.weigh(scored / len(centred) > products * (FEW * n_latents + 3 * len(u) / len(centred)))
        sides = {} if rule.boost is None else {rule.boost.head: boosts}
        if rule.k:
            support = Support.from_indices(latents.view(len(centred), rule.k), n_latents)
            return Chosen(support, u, sides, lengths=lengths)
        support = Support(torch.arange(len(centred)).repeat_interleave(counts), latents, len(centred), n_latents)
        if rule.hinted:  # the shift was subtracted and added again
            u = self.products(centred, weight, support) + bias[latents]
        return Chosen(support, u, sides, lengths=lengths)

    def _kept(self, weight: Tensor, states: Tensor, boost: Boost | None) -> _Kept:
        """The weights, packed as they are now for the kind that is due."""
        kept = self.kept.get(weight)
        if kept is None:
            kept = self.kept[weight] = _Kept(self._unpacked(weight))
        kind = kept.kind(self.kinds, weight.shape[1])
        self._pack(kept.packed, kind, weight, states)
        if boost is not None:
            kept.boost = kept.boost or self._unpacked(boost.weight)
            self._pack(kept.boost, kind, boost.weight, boost.rows)
        return kept

    def _unpacked(self, weight: Tensor) -> _Packed:
        norms = torch.empty(4, self.library.ot_padded(len(weight)))
        return _Packed(norms, torch.empty(4, weight.shape[1]))

    def _pack(self, packed: _Packed, kind: int, weight: Tensor, states: Tensor) -> None:
        n_latents, width = weight.shape
        if kind != packed.kind:
            size = self.library.ot_packed_bytes(kind, n_latents, width)
            packed.kind, packed.cells = kind, torch.empty(size, dtype=torch.uint8)
        self.drawn += 1
        self.library.ot_grid(
            states.data_ptr(), len(states), weight.data_ptr(), n_latents, width, self.drawn, packed.grid.data_ptr()
        )

        def part(first: int, last: int) -> None:
            failed = self.library.ot_pack(
                kind, weight.data_ptr(), n_latents, width, packed.grid.data_ptr(), first, last, packed.cells.data_ptr(),
                packed.norms.data_ptr(),
            )  # fmt: skip
            if failed:
                raise MemoryError("no memory for a panel of packed weights.")

        threads.over(self.library.ot_panels(n_latents), GRAIN, part)

    # ------------------------------------------------------------------------------------------------ sparse products
    def bags(self, values: Tensor, weight: Tensor, at: Support) -> Tensor:
        """As in `sparse.Products`."""
        if not served(values, weight):
            return sparse.TORCH.bags(values, weight, at)
        out = memory.take(at.n_rows, weight.shape[1])
        self._by_row(self.library.ot_decode, values, weight, at, out.data_ptr())
        return out

    def products(self, states: Tensor, weight: Tensor, at: Support) -> Tensor:
        """As in `sparse.Products`."""
        if not served(states, weight):
            return sparse.TORCH.products(states, weight, at)
        out = torch.empty(len(at.latents))
        self._by_row(self.library.ot_products, states, weight, at, out.data_ptr())
        return out

    def towards(self, values: Tensor, weight: Tensor, constant: Tensor, target: Tensor, at: Support) -> sparse.Towards:
        """As in `sparse.Products`."""
        if not served(values, weight, constant, target):
            return sparse.composed(self, values, weight, constant, target, at)
        width = weight.shape[1]
        missed = memory.take(at.n_rows, width)
        squares, products = torch.empty(at.n_rows), torch.empty(len(at.latents))
        stride = width if constant.ndim == 2 else 0
        pointers = [t.data_ptr() for t in (target, missed, squares, products)]

        def part(*given: Any) -> Tensor:
            columns = torch.empty(2, width)
            self.library.ot_towards(*given, constant.data_ptr(), stride, *pointers, columns.data_ptr())
            return columns[0]

        columns = self._by_row(part, values, weight, at)
        return sparse.Towards(missed, squares, products, torch.stack(columns).sum(0))

    def _by_row(
        self, function: Callable[..., Found], first: Tensor, weight: Tensor, at: Support, *more: int
    ) -> list[Found]:
        pointers = first.data_ptr(), weight.data_ptr(), at.latents.data_ptr(), at.row_starts.data_ptr()
        n, width = len(at.latents), weight.shape[1]
        return threads.over(at.n_rows, GRAIN, lambda a, b: function(*pointers, at.n_rows, n, a, b, width, *more))

    def _by_latent(self, at: Support) -> tuple[Tensor, Tensor, Tensor]:
        n, latents, rows = len(at.latents), at.latents.contiguous(), at.rows.contiguous()
        order, sorted_rows, starts = (torch.empty(size, dtype=torch.int32) for size in (n, n, at.n_latents + 1))
        self.library.ot_by_latent(
            latents.data_ptr(), rows.data_ptr(), n, at.n_latents, *(t.data_ptr() for t in (order, sorted_rows, starts))
        )
        return order, sorted_rows, starts[:-1]

    def sum_by_latent(self, values: Tensor, states: Tensor, at: Support) -> tuple[Tensor, Tensor]:
        """As in `sparse.Products`."""
        if not served(values, states):
            return sparse.TORCH.sum_by_latent(values, states, at)
        at.transposed_by(self._by_latent)
        order, rows, starts = at.by_latent
        width, n = states.shape[1], len(values)
        out, totals = memory.take(at.n_latents, width), torch.empty(at.n_latents)
        with self.slices.way("sums", len(states), width, n) as by_slice:
            values = values.index_select(0, order) if by_slice else values
            pointers = [t.data_ptr() for t in (values, states, order, rows, starts)]
            slices = packed(self.library, states) if by_slice else None
            results = _pointer(slices), out.data_ptr(), totals.data_ptr()

            def part(first: int, last: int) -> None:
                sizes = at.n_latents, n, first, last, len(states), width
                self.library.ot_sum_by_latent(*pointers, *sizes, *results)

            threads.over(at.n_latents, GRAIN, part)
        return out, totals

    def weighed(
        self, values: Tensor, states: Tensor, lengths: Tensor | None, at: Support
    ) -> tuple[Tensor, float, Tensor] | None:
        """As in `sparse.Products`."""
        if not served(values, states):
            return None
        lengths = torch.linalg.vector_norm(states, dim=1) if lengths is None else lengths
        at.transposed_by(self._by_latent)
        order, rows, starts = at.by_latent
        totals, ordered, n = torch.empty(at.n_latents), torch.empty(len(values)), len(values)
        made = totals.data_ptr(), ordered.data_ptr()
        pointers = [t.data_ptr() for t in (values, lengths, order, rows, starts)]
        squares = threads.over(
            at.n_latents, GRAIN,
            lambda a, b: self.library.ot_weigh_by_latent(*pointers, at.n_latents, n, a, b, *made),
        )  # fmt: skip
        return totals, sum(squares) ** 0.5, ordered


def digits(kind: int) -> str:
    """What a kind of the library nominates with."""
    return NOMINEES[kind & ~AMX]


def _pointer(tensor: Tensor | None) -> int | None:
    return None if tensor is None else tensor.data_ptr()


def _joined(parts: list[Tensor]) -> Tensor:
    return parts[0] if len(parts) == 1 else torch.cat(parts)
