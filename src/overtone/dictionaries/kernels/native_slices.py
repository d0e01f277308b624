"""Matrices slice by slice, as `sums.h` wants them: a few columns of all rows together."""

import ctypes

from torch import Tensor

from overtone.dictionaries.kernels import memory, threads
from overtone.dictionaries.kernels.trial import Slices

ROWS = 64  # that are worth a thread

_I, _P = ctypes.c_int64, ctypes.c_void_p
_SIGNATURES = {
    "ot_may_be_sliced": (_I, [_I] * 3),
    "ot_sliced_size": (_I, [_I] * 2),
    "ot_pack_slices": (None, [_P, _I, _I, _I, _I, _P]),
}


def sliced(library: ctypes.CDLL) -> Slices:
    """Trials of sums by slices in a compiled library of the kernels."""
    for name, (result, arguments) in _SIGNATURES.items():
        function = getattr(library, name)
        function.restype, function.argtypes = result, arguments
    return Slices(library.ot_may_be_sliced)


def packed(library: ctypes.CDLL, matrix: Tensor) -> Tensor:
    """The slices of a (rows, width) matrix."""
    n_rows, width = matrix.shape
    slices = memory.take(library.ot_sliced_size(n_rows, width))
    pointers = matrix.data_ptr(), slices.data_ptr()
    threads.over(n_rows, ROWS, lambda a, b: library.ot_pack_slices(pointers[0], n_rows, a, b, width, pointers[1]))
    return slices
