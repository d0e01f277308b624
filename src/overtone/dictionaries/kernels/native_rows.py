"""The passes of `rows.c` on torch tensors: contiguous float32 on a CPU. All others are left to torch."""

import ctypes

import torch
from torch import Tensor

from overtone.dictionaries.kernels import memory, threads
from overtone.dictionaries.kernels.served import served
from overtone.dictionaries.lengths import are_usual, of_length
from overtone.dictionaries.normalisers import Normaliser

GRAIN = 64  # rows that are worth a thread

_I, _P, _F = ctypes.c_int64, ctypes.c_void_p, ctypes.c_float
_SIGNATURES = {"ot_in_units": [_P, _F, _P, _I, _I, _I, _P, _P], "ot_of_length": [_P, _F, _I, _I, _I, _P, _P]}


def in_units(normaliser: Normaliser, x: Tensor, centre: Tensor | float) -> tuple[Tensor, Tensor]:
    """(rows, width) states in a dictionary's units, and these less its centre; without gradients."""
    inputs = normaliser(x)
    return inputs, inputs - centre


def common_factor(normaliser: Normaliser, x: Tensor, centre: Tensor | float) -> Tensor | None:
    """The one factor of all states, where units are no more than that and a kernel can work on states and centre."""
    factor, plain = normaliser.factors, type(normaliser).forward is Normaliser.forward
    if not (plain and isinstance(factor, Tensor) and factor.ndim == 0 and isinstance(centre, Tensor)):
        return None
    return factor if served(x, centre) and centre.shape == x.shape[1:] else None


class NativeRows:
    """The passes in a compiled library of the kernels."""

    def __init__(self, library: ctypes.CDLL) -> None:
        for name, arguments in _SIGNATURES.items():
            function = getattr(library, name)
            function.restype, function.argtypes = None, arguments
        self.library = library

    def in_units(self, normaliser: Normaliser, x: Tensor, centre: Tensor | float) -> tuple[Tensor, Tensor]:
        """As the function above."""
        factor = common_factor(normaliser, x, centre)
        if factor is None or not isinstance(centre, Tensor):
            return in_units(normaliser, x, centre)
        inputs, centred = memory.take(*x.shape), memory.take(*x.shape)
        given = x.data_ptr(), float(factor), centre.data_ptr()
        made = inputs.data_ptr(), centred.data_ptr()
        threads.over(len(x), GRAIN, lambda a, b: self.library.ot_in_units(*given, a, b, x.shape[1], *made))
        return inputs, centred

    def of_length(self, rows: Tensor, length: Tensor) -> Tensor:
        """As `lengths.of_length`."""
        if not served(rows):
            return of_length(rows, length)
        out, own = memory.take(*rows.shape), torch.empty(len(rows))
        given, made = (rows.data_ptr(), float(length)), (out.data_ptr(), own.data_ptr())
        threads.over(len(rows), GRAIN, lambda a, b: self.library.ot_of_length(*given, a, b, rows.shape[1], *made))
        usual = are_usual(own)
        if not bool(usual.all()):
            out[~usual] = of_length(rows[~usual], length)
        return out
