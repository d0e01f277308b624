"""The passes of `update.c` on torch tensors: contiguous float32 on a CPU. All others are left to torch."""

import ctypes
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.autograd.graph import increment_version

from overtone.dictionaries.kernels import memory, threads
from overtone.dictionaries.kernels.kept import Squares, keep
from overtone.dictionaries.kernels.native_slices import packed, sliced
from overtone.dictionaries.kernels.served import served
from overtone.dictionaries.kernels.update import EPSILON, LEAST, Moments, Update, parted
from overtone.dictionaries.kernels.waiting import Sums

ROWS, NUMBERS = 64, 2**14  # that are worth a thread

_I, _P, _F, _D = ctypes.c_int64, ctypes.c_void_p, ctypes.c_float, ctypes.c_double
_SIGNATURES = {
    "ot_squares": (_D, [_P, _I]),
    "ot_along": (_D, [_P, _P, _I, _I, _I, _P]),
    "ot_to_length_one": (None, [_P, _I, _I, _I, _F]),
    "ot_adam_room": (_I, [_I] * 3),
    "ot_adam_of_sums": (_D, [*[_P] * 8, *[_I] * 6, _P, _P, _I, _P, _P, _F, *[_D] * 5]),
    "ot_adam": (None, [*[_P] * 4, _I, _I, _I, _P, _F, *[_D] * 6]),
}


class NativeUpdate(Update):
    """The passes in a compiled library of the kernels."""

    def __init__(self, library: ctypes.CDLL) -> None:
        for name, (result, arguments) in _SIGNATURES.items():
            function = getattr(library, name)
            function.restype, function.argtypes = result, arguments
        self.library = library
        self.slices = sliced(library)

    def norm(self, everything: Sequence[Moments]) -> Tensor:
        """As in `Update`, but that gradients stay as they are and `along` is kept."""
        mine, others = parted(everything, _is_mine)
        squares = sum(self._along(one) if one.unit else self._squares(one.gradient) for one in mine)
        found = torch.tensor(squares, dtype=torch.float64).sqrt()
        return torch.hypot(found, super().norm(others).double()) if others else found

    def _squares(self, tensor: Tensor) -> float:
        start, size = tensor.data_ptr(), tensor.element_size()
        return sum(
            threads.over(
                tensor.numel(), NUMBERS, lambda first, last: self.library.ot_squares(start + size * first, last - first)
            )
        )

    def _along(self, one: Moments) -> float:
        (n, width), one.along = one.parameter.shape, torch.empty(len(one.parameter))
        rows, along = (one.gradient.data_ptr(), one.parameter.data_ptr()), one.along.data_ptr()
        return sum(threads.over(n, ROWS, lambda first, last: self.library.ot_along(*rows, first, last, width, along)))

    def adam(self, everything: Sequence[Moments], lr: float, betas: tuple[float, float], scale: Tensor | None) -> None:
        """As in `Update`."""
        mine, others = parted(everything, _is_mine)
        if others:
            super().adam(others, lr, betas, scale)
        for one in mine:
            self._adam(one, lr, betas, 1.0 if scale is None else float(scale))
            increment_version(one.parameter)

    def _adam(self, one: Moments, lr: float, betas: tuple[float, float], factor: float) -> None:
        size, root = _rates(one, lr, betas)
        tensors = [t.data_ptr() for t in (one.parameter, one.gradient, one.mean, one.square)]
        n, width, grain = one.parameter.numel(), 1, NUMBERS
        if one.along is not None:
            (n, width), grain = one.parameter.shape, ROWS
        along = None if one.along is None else one.along.data_ptr()
        threads.over(
            n, grain,
            lambda first, last: self.library.ot_adam(
                *tensors, first, last, width, along, LEAST, factor, *betas, size, root, EPSILON
            ),
        )  # fmt: skip

    def adam_of_sums(self, one: Moments, sums: Sums, lr: float, betas: tuple[float, float]) -> None:
        """As in `Update`."""
        if not served(one.parameter, one.mean, one.square, *([] if sums.more is None else [sums.more.gradient])):
            super().adam_of_sums(one, sums, lr, betas)
            return
        use, width = "unit" if one.unit else "free", one.parameter.shape[1]
        with self.slices.way(use, len(sums.states), width, len(sums.values)) as by_slice:
            squares = self._adam_of_sums(one, sums, _rates(one, lr, betas), betas, by_slice)
        increment_version(one.parameter)
        if one.unit:
            keep(one.parameter, Squares(squares))

    def _adam_of_sums(
        self, one: Moments, sums: Sums, rates: tuple[float, float], betas: tuple[float, float], by_slice: bool
    ) -> float:
        (n, width), n_rows = one.parameter.shape, len(sums.states)
        values = sums.by_latent if by_slice else sums.values
        slices = packed(self.library, sums.states) if by_slice else None
        in_slices = None if slices is None else slices.data_ptr()
        tensors = [one.parameter, one.mean, one.square, values, sums.states, *sums.at.by_latent]
        pointers = [t.data_ptr() for t in tensors]
        where, more = torch.empty(0, dtype=torch.int32), torch.empty(0)
        if sums.more is not None:
            where, more = torch.full((n,), -1, dtype=torch.int32), sums.more.gradient
            where[sums.more.latents] = torch.arange(len(more), dtype=torch.int32)

        def part(first: int, last: int) -> float:
            room = memory.take(self.library.ot_adam_room(width, last - first, by_slice))
            return self.library.ot_adam_of_sums(
                *pointers, n, len(values), first, last, n_rows, width, more.data_ptr() or None,
                where.data_ptr() or None, one.unit, room.data_ptr(), in_slices, LEAST, *betas, *rates, EPSILON,
            )  # fmt: skip

        return sum(threads.over(n, ROWS, part))

    def to_length_one(self, rows: Tensor) -> None:
        """As in `Update`."""
        if not served(rows):
            super().to_length_one(rows)
            return
        pointer, (n, width) = rows.data_ptr(), rows.shape
        threads.over(n, ROWS, lambda first, last: self.library.ot_to_length_one(pointer, first, last, width, LEAST))
        increment_version(rows)


def _rates(one: Moments, lr: float, betas: tuple[float, float]) -> tuple[float, float]:
    """The size of the next step, and what the root of squares is divided by."""
    step = int(one.step.add_(1))
    return lr / (1 - betas[0] ** step), (1 - betas[1] ** step) ** 0.5


def _is_mine(one: Moments) -> bool:
    """Whether the library can work on it."""
    return served(one.parameter, one.gradient, one.mean, one.square)
