"""The kernels of the C files beside this one, on torch tensors: float32 on a CPU. Other dtypes take `sparse.py`.

Besides the sparse products, `choose` is the encoder's product and the selection in one pass that keeps no
(rows, latents) matrix. Where the processor multiplies bf16 numbers, that is how it nominates; the choice is exact all
the same, see the head of `choose.c`. Rows that had to be computed as a whole are counted in `whole_rows`.
"""

import ctypes
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils.weak import WeakTensorKeyDictionary

from overtone.dictionaries.codes import Support
from overtone.dictionaries.selectors.base import Rule
from overtone.training.kernels import compiler, memory, sparse, threads

LEVELS = ("portable C", "AVX2", "AVX-512", "AVX-512 bf16")
MACHINE = "-march=native"
ROOM = 256  # nominees of a row, beside k, before they are cut down; few rows ever need more (see `whole_rows`)
GRAIN = 64  # rows or latents that are worth a thread

_I, _P, _F = ctypes.c_int64, ctypes.c_void_p, ctypes.c_float
_SIGNATURES = {
    "ot_level": (_I, []),
    "ot_packed_bytes": (_I, [_I, _I]),
    "ot_panels": (_I, [_I]),
    "ot_padded": (_I, [_I]),
    "ot_pack": (_F, [_P, _I, _I, _I, _I, _P, _P]),
    "ot_choose": (_I, [_P, _I, _I, _I, _P, _P, _P, _F, _P, _P, _I, _F, _I, _I, _I, _P, _P, _P, _P]),
    "ot_decode": (None, [_P, _P, _P, _P, _I, _I, _I, _I, _I, _P]),
    "ot_products": (None, [_P, _P, _P, _P, _I, _I, _I, _I, _I, _P]),
    "ot_sum_by_latent": (None, [_P, _P, _P, _P, _P, _I, _I, _I, _I, _I, _P, _P]),
}


@dataclass(eq=False)
class _Packed:
    """What is kept for a weight between steps: its packed form, and how many places a batch has had."""

    cells: Tensor
    norms: Tensor
    size: int = 0


class Native:
    """The compiled library for some compiler options. Raises BuildError if it cannot be had."""

    def __init__(self, *options: str) -> None:
        self.library = compiler.load(options)
        for name, (result, arguments) in _SIGNATURES.items():
            function = getattr(self.library, name)
            function.restype, function.argtypes = result, arguments
        self.level = int(self.library.ot_level())
        self.whole_rows = 0  # since the start
        self.kept = WeakTensorKeyDictionary()
        memory.ON_RELEASE.append(self.kept.clear)
        self.preactivations, self.decode = sparse.differentiable(self)

    @property
    def name(self) -> str:
        """For logs."""
        return f"compiled ({LEVELS[self.level]})"

    # ------------------------------------------------------------------------------------------------------ selection
    def select(
        self, centred: Tensor, weight: Tensor, bias: Tensor, rule: Rule, two_sided: bool
    ) -> tuple[Support, Tensor]:
        """As in `choose.Select`."""
        packed, ratio = self._packed(weight)
        shift = None if rule.shift is None else rule.shift.float().contiguous()
        n_latents, width = weight.shape
        room = min(2 * rule.k + ROOM if rule.k else 4 * ROOM, n_latents + 128)

        def part(first: int, last: int) -> tuple[Tensor, Tensor, Tensor, int]:
            rows = centred[first:last]
            counts, whole = torch.empty(len(rows), dtype=torch.int64), torch.zeros(1, dtype=torch.int64)
            size = len(rows) * rule.k or min(len(rows) * n_latents, packed.size // len(centred) * len(rows) + 64 * ROOM)
            while True:
                latents, u = torch.empty(size, dtype=torch.int64), torch.empty(size)
                found = self.library.ot_choose(
                    rows.data_ptr(), len(rows), width, n_latents, weight.data_ptr(), packed.cells.data_ptr(),
                    packed.norms.data_ptr(), ratio, bias.data_ptr(), _pointer(shift), rule.k, rule.floor,
                    two_sided, room, size, latents.data_ptr(), u.data_ptr(), counts.data_ptr(), whole.data_ptr(),
                )  # fmt: skip
                if found >= 0:
                    return latents[:found], u[:found], counts, int(whole)
                if found == -2:
                    raise MemoryError("no memory for the selection's lists.")
                size = min(2 * size, len(rows) * n_latents)

        parts = threads.over(len(centred), GRAIN, part)
        latents, u, counts = (_joined(list(found)) for found in list(zip(*parts, strict=True))[:3])
        self.whole_rows += sum(p[3] for p in parts)
        packed.size = int(1.2 * len(u))
        if rule.k:
            return Support.from_indices(latents.view(len(centred), rule.k), n_latents), u
        rows = torch.arange(len(centred)).repeat_interleave(counts)
        return Support(rows, latents, len(centred), n_latents), u

    def _packed(self, weight: Tensor) -> tuple[_Packed, float]:
        n_latents, width = weight.shape
        kept = self.kept.get(weight)
        if kept is None:
            size = self.library.ot_packed_bytes(n_latents, width)
            norms = torch.empty(self.library.ot_padded(n_latents))
            kept = self.kept[weight] = _Packed(torch.empty(size, dtype=torch.uint8), norms)

        def part(first: int, last: int) -> float:
            return self.library.ot_pack(
                weight.data_ptr(), n_latents, width, first, last, kept.cells.data_ptr(), kept.norms.data_ptr()
            )

        return kept, max(threads.over(self.library.ot_panels(n_latents), GRAIN, part))

    # ------------------------------------------------------------------------------------------------ sparse products
    def bags(self, values: Tensor, weight: Tensor, at: Support) -> Tensor:
        """As in `sparse.Products`."""
        if not _served(values, weight):
            return sparse.TORCH.bags(values, weight, at)
        out = memory.take(at.n_rows, weight.shape[1])
        self._by_row(self.library.ot_decode, values, weight, at, out)
        return out

    def products(self, states: Tensor, weight: Tensor, at: Support) -> Tensor:
        """As in `sparse.Products`."""
        if not _served(states, weight):
            return sparse.TORCH.products(states, weight, at)
        out = torch.empty(len(at.latents))
        self._by_row(self.library.ot_products, states, weight, at, out)
        return out

    def _by_row(self, function: Callable[..., Any], first: Tensor, weight: Tensor, at: Support, out: Tensor) -> None:
        pointers = first.data_ptr(), weight.data_ptr(), at.latents.data_ptr(), at.row_starts.data_ptr()
        n, width = len(at.latents), weight.shape[1]
        threads.over(at.n_rows, GRAIN, lambda a, b: function(*pointers, at.n_rows, n, a, b, width, out.data_ptr()))

    def sum_by_latent(self, values: Tensor, states: Tensor, at: Support) -> tuple[Tensor, Tensor]:
        """As in `sparse.Products`."""
        if not _served(values, states):
            return sparse.TORCH.sum_by_latent(values, states, at)
        order, rows, starts = at.by_latent
        width, n = states.shape[1], len(values)
        out, totals = memory.take(at.n_latents, width), torch.empty(at.n_latents)
        pointers = [t.data_ptr() for t in (values, states, order, rows, starts)]
        threads.over(
            at.n_latents, GRAIN,
            lambda a, b: self.library.ot_sum_by_latent(
                *pointers, at.n_latents, n, a, b, width, out.data_ptr(), totals.data_ptr()
            ),
        )  # fmt: skip
        return out, totals


def _served(*tensors: Tensor) -> bool:
    return all(t.dtype == torch.float32 and t.device.type == "cpu" and t.is_contiguous() for t in tensors)


def _pointer(tensor: Tensor | None) -> int | None:
    return None if tensor is None else tensor.data_ptr()


def _joined(parts: list[Tensor]) -> Tensor:
    return parts[0] if len(parts) == 1 else torch.cat(parts)
