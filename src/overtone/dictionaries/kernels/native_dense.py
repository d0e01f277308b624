"""The dense product of `dense.c` on torch tensors: float32 on a CPU, any strides, written or added where it belongs."""

import ctypes

import torch
from torch import Tensor

from overtone.core.errors import ShapeError
from overtone.dictionaries.kernels import threads

SMALL = 2**18  # multiplications below which torch's own product costs less than the call
GRAIN = 96  # rows or columns of a result that are worth a thread

_I, _P = ctypes.c_int64, ctypes.c_void_p


class NativeProduct:
    """The product in a compiled library of the kernels. kind: AMX, where matrix registers may be used, or 0."""

    def __init__(self, library: ctypes.CDLL, kind: int = 0) -> None:
        self._product, self._kind = library.ot_product, kind
        self._product.restype, self._product.argtypes = _I, [_P, _I, _I, _P, _I, _I, _I, _I, _I, _P, _I, _I, _I]

    def serves(self, *tensors: Tensor) -> bool:
        """Whether it can compute with such matrices."""
        return all(t.dtype == torch.float32 and t.device.type == "cpu" and t.ndim == 2 for t in tensors)

    def __call__(self, a: Tensor, b: Tensor, out: Tensor, *, add: bool) -> None:
        """out (m, n) = or, with `add`, += a b^T, a (m, k), b (n, k), rows of `out` contiguous. Gradients see nothing of
        it. Raises ShapeError where sizes do not fit, since the library reads what it is told is there."""
        m, n, k = len(a), len(b), a.shape[1]
        if b.shape[1] != k or out.shape != (m, n):
            sizes = " and ".join(str(tuple(t.shape)) for t in (a, b, out))
            raise ShapeError(f"expected (m, k), (n, k) and (m, n) matrices, got {sizes}. Both factors need one width.")

        def rows(first: int, last: int) -> None:
            self._part(a[first:last], b, out[first:last], add)

        def columns(first: int, last: int) -> None:
            self._part(a, b[first:last], out[:, first:last], add)

        if m * n * k < SMALL:
            out.copy_(torch.addmm(out, a, b.T) if add else a @ b.T)
        elif m >= n:
            threads.over(m, GRAIN, rows)
        else:
            threads.over(n, GRAIN, columns)

    def _part(self, a: Tensor, b: Tensor, out: Tensor, add: bool) -> None:
        sizes = len(a), len(b), a.shape[1]
        failed = self._product(
            a.data_ptr(), *a.stride(), b.data_ptr(), *b.stride(), *sizes, out.data_ptr(), out.stride(0), add, self._kind
        )
        if failed:
            raise MemoryError("no memory for the packed parts of a product.")
