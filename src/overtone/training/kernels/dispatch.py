"""Which kernels a device gets: the fastest ones that this machine has, under a name that the run's log repeats.

    cuda   Triton's, where Triton is installed
    cpu    compiled: C, built at first use where there is a compiler and the processor has wide registers
    else   torch alone; on a CPU that multiplies int8 or bf16 numbers fast with a selection in two stages
OVERTONE_KERNELS=compiled, torch or plain forces a kind on a CPU (plain: torch, and each dictionary's own selection);
OVERTONE_NOMINEES=int8, bf16 or single what they nominate with (left out: the fastest that there is; single: float32,
with torch alone each dictionary's own selection).
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
from overtone.core.memory import keep_freed
from overtone.dictionaries.autoencoder import Chosen
from overtone.training.kernels import sparse
from overtone.training.kernels.candidates import Candidates
from overtone.training.kernels.choose import choose
from overtone.training.kernels.native_dense import NativeProduct
from overtone.training.kernels.nominees import NOMINEES
from overtone.training.kernels.rounded import Kind
from overtone.training.kernels.rounded_bf16 import BF16
from overtone.training.kernels.rounded_int8 import INT8

log = logging.getLogger(__name__)
_FORCED: ContextVar[str] = ContextVar("forced kernels", default="")
KERNELS = ("auto", "compiled", "torch", "plain")
KINDS: tuple[Kind, ...] = (INT8, BF16)  # of few bits, the fastest first


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
    if kind not in KERNELS:
        raise SettingError(f"OVERTONE_KERNELS={kind}: use one of {', '.join(KERNELS)}.")
    keep_freed()
    if device_type == "cuda" and find_spec("triton") is not None:
        from overtone.training.kernels import triton_sparse

        return Kernels("triton", triton_sparse.preactivations, triton_sparse.decode)
    if device_type == "cpu" and kind in ("auto", "compiled"):
        found = _compiled(forced=kind == "compiled")
        if found is not None:
            return found
    nominees = _few_bits(forced=kind == "torch") if device_type == "cpu" and kind != "plain" else ()
    if nominees:
        fast = partial(choose, select=Candidates(*nominees).select)
        return Kernels(f"torch ({nominees[0].name} nominees)", sparse.preactivations, sparse.decode, fast)
    return Kernels("torch", sparse.preactivations, sparse.decode)


def _few_bits(*, forced: bool) -> tuple[Kind, ...]:
    """What torch's selection nominates with, the fastest first; none where nothing is fast or asked for."""
    asked = _nominees()
    kinds = tuple(kind for kind in KINDS if asked in (None, kind.name) and kind.is_fast())
    if forced and asked not in (None, "single") and not kinds:
        raise SettingError(
            f"OVERTONE_NOMINEES={asked}, but this processor or this torch has no fast {asked} products. Change that, "
            "or unset the variable."
        )
    return kinds


def _nominees() -> str | None:
    asked = os.environ.get("OVERTONE_NOMINEES") or None
    if asked not in (None, *NOMINEES):
        raise SettingError(f"OVERTONE_NOMINEES={asked}: use one of {', '.join(NOMINEES)}.")
    return asked


def _compiled(*, forced: bool) -> Kernels | None:
    from overtone.training.kernels.compiler import BuildError
    from overtone.training.kernels.native import MACHINE, Native

    nominees = _nominees()
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
