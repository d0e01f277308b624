"""Which kernels a device gets: the fastest ones that this machine has, under a name that the run's log repeats.

    cuda   Triton's, where Triton is installed
    cpu    compiled: C, built at first use where there is a compiler and the processor has wide registers
    else   torch alone; on a CPU that multiplies bf16 numbers with a selection in two stages
OVERTONE_KERNELS=compiled, torch or plain forces a kind on a CPU (plain: torch, and each dictionary's own selection);
OVERTONE_NOMINEES=int8, bf16 or single what the compiled ones nominate with (left out: the fastest that there is).
"""

import logging
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from functools import cache, partial
from importlib.util import find_spec

import torch
from torch import Tensor

from overtone.core.errors import SettingError
from overtone.dictionaries.autoencoder import Chosen
from overtone.training.kernels import candidates, sparse
from overtone.training.kernels.choose import choose
from overtone.training.kernels.native_dense import NativeProduct

log = logging.getLogger(__name__)
_FORCED: ContextVar[str] = ContextVar("forced kernels", default="")
KINDS = ("auto", "compiled", "torch", "plain")


@dataclass(frozen=True)
class Kernels:
    """One implementation of what training speed depends on. preactivations and decode have the signatures and results
    of `reference.py`; choose those of `choose.choose`, without its last argument; product: of dense matrices, see
    `native_dense`, where there is a better one than torch's."""

    name: str
    preactivations: Callable[..., Tensor]
    decode: Callable[..., Tensor]
    choose: Callable[..., Chosen] = choose
    product: NativeProduct | None = None


def kernels_for(device: torch.device | str) -> Kernels:
    """The kernels for tensors of a device. Raises SettingError if OVERTONE_KERNELS asks for what there is not."""
    return _of_kind(torch.device(device).type, _FORCED.get() or os.environ.get("OVERTONE_KERNELS", "auto"))


@contextmanager
def using(kind: str) -> Iterator[None]:
    """Force a kind on a CPU while inside, as OVERTONE_KERNELS does."""
    token = _FORCED.set(kind)
    try:
        yield
    finally:
        _FORCED.reset(token)


@cache
def _of_kind(device_type: str, kind: str) -> Kernels:
    if kind not in KINDS:
        raise SettingError(f"OVERTONE_KERNELS={kind}: use one of {', '.join(KINDS)}.")
    if device_type == "cuda" and find_spec("triton") is not None:
        from overtone.training.kernels import triton_sparse

        return Kernels("triton", triton_sparse.preactivations, triton_sparse.decode)
    if device_type == "cpu" and kind in ("auto", "compiled"):
        found = _compiled(forced=kind == "compiled")
        if found is not None:
            return found
    if device_type == "cpu" and kind != "plain" and candidates.is_fast():
        fast = partial(choose, select=candidates.select)
        return Kernels("torch (bf16 nominees)", sparse.preactivations, sparse.decode, fast)
    return Kernels("torch", sparse.preactivations, sparse.decode)


def _compiled(*, forced: bool) -> Kernels | None:
    from overtone.training.kernels.compiler import BuildError
    from overtone.training.kernels.native import MACHINE, NOMINEES, Native

    nominees = os.environ.get("OVERTONE_NOMINEES") or None
    if nominees not in (None, *NOMINEES):
        raise SettingError(f"OVERTONE_NOMINEES={nominees}: use one of {', '.join(NOMINEES)}.")
    try:
        native = Native(MACHINE, nominees=nominees)
    except BuildError as error:
        if forced or nominees:
            name = "OVERTONE_NOMINEES" if nominees else "OVERTONE_KERNELS"
            raise SettingError(
                f"{name}={nominees or 'compiled'}, but {error}. Change that, or unset the variable."
            ) from None
        log.info("training runs on torch's own kernels: %s", error)
        return None
    if native.level == 0 and not forced:
        return None
    chosen = partial(choose, select=native.select)
    return Kernels(native.name, native.preactivations, native.decode, chosen, NativeProduct(native.library))
