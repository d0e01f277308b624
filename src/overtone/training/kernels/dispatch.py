"""Which kernels a device gets: the fastest ones that are installed, under a name that the run's log repeats."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec

import torch
from torch import Tensor

from overtone.training.kernels import sparse


@dataclass(frozen=True)
class Kernels:
    """One implementation of the sparse products; both functions have the signatures and results of `reference.py`."""

    name: str
    preactivations: Callable[..., Tensor]
    decode: Callable[..., Tensor]


def kernels_for(device: torch.device | str) -> Kernels:
    """The kernels for tensors of a device: Triton's on CUDA where Triton is installed, else plain torch."""
    return _of_kind(torch.device(device).type)


@cache
def _of_kind(device_type: str) -> Kernels:
    if device_type == "cuda" and find_spec("triton") is not None:
        from overtone.training.kernels import triton_sparse

        return Kernels("triton", triton_sparse.preactivations, triton_sparse.decode)
    return Kernels("torch", sparse.preactivations, sparse.decode)
