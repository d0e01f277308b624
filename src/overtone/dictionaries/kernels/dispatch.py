"""Which kernels a device gets: the fastest ones that this machine has, under a name that the run's log repeats.

    cuda   Triton's, where Triton is installed and can build them
    cpu    compiled: C, built at first use where there is a compiler and the processor has wide registers
    else   torch alone; on a CPU that multiplies int8 or bf16 numbers fast with a selection in two stages
OVERTONE_KERNELS=compiled, torch or plain forces a kind (plain: torch, and each dictionary's own selection; the first is
for CPUs, and what there is elsewhere);
OVERTONE_NOMINEES=int8, bf16 or single what they nominate with (left out: the fastest that there is; single: float32,
with torch alone each dictionary's own selection).
"""

import logging
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from overtone.core.errors import SettingError
from overtone.core.memory import keep_freed
from overtone.dictionaries.choice import Chosen
from overtone.dictionaries.kernels import sparse
from overtone.dictionaries.kernels.candidates import Candidates
from overtone.dictionaries.kernels.choose import Select, choose, choose_alone
from overtone.dictionaries.kernels.native_dense import NativeProduct
from overtone.dictionaries.kernels.native_rows import in_units
from overtone.dictionaries.kernels.native_update import NativeUpdate
from overtone.dictionaries.kernels.nominees import NOMINEES
from overtone.dictionaries.kernels.rounded import Kind
from overtone.dictionaries.kernels.rounded_bf16 import BF16
from overtone.dictionaries.kernels.rounded_int8 import INT8
from overtone.dictionaries.kernels.update import Update

if TYPE_CHECKING:
    from overtone.dictionaries.autoencoder import Autoencoder

log = logging.getLogger(__name__)
_FORCED: ContextVar[str] = ContextVar("forced kernels", default="")
KERNELS = ("auto", "compiled", "torch", "plain")
KINDS: tuple[Kind, ...] = (INT8, BF16)  # of few bits, the fastest first


@dataclass(frozen=True)
class Kernels:
    """One implementation of what speed depends on. preactivations, decode and reconstruct have the signatures and
    results of `reference.py`; select: product and selection in one pass, where there is one; product: of dense
    matrices, see `native_dense`, where there is a better one than torch's; update: what follows the gradients;
    in_units: as `native_rows.in_units`."""

    name: str
    preactivations: Callable[..., Tensor]
    decode: Callable[..., Tensor]
    reconstruct: Callable[..., tuple[Tensor, Tensor]]
    select: Select | None = None
    product: NativeProduct | None = None
    update: Update = Update()  # noqa: RUF009
    in_units: Callable[..., tuple[Tensor, Tensor]] = in_units

    def choose(self, model: "Autoencoder", centred: Tensor, **options: Any) -> Chosen:
        """The active places of a training batch, as `choose.choose`."""
        return choose(model, centred, select=self.select, **options)

    def choose_alone(self, model: "Autoencoder", centred: Tensor, beside: Mapping[str, Tensor]) -> Chosen | None:
        """The active places of states of which each stands alone, as `choose.choose_alone`."""
        return choose_alone(model, centred, beside, self.select)


def kernels_for(device: torch.device | str) -> Kernels:
    """The kernels for tensors of a device. Raises SettingError if OVERTONE_KERNELS asks for what there is not."""
    return _of_kind(torch.device(device).type, _FORCED.get() or os.environ.get("OVERTONE_KERNELS", "auto"))


@contextmanager
def using(kind: str) -> Iterator[None]:
    """Force a kind while inside, as OVERTONE_KERNELS does."""
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
    if device_type == "cuda" and kind in ("auto", "compiled") and _triton_builds():
        from overtone.dictionaries.kernels import triton_rows, triton_select, triton_sparse, triton_update

        functions, update = triton_sparse.FUNCTIONS, triton_update.TritonUpdate()
        return Kernels("triton", *functions, triton_select.select, None, update, triton_rows.in_units)
    if device_type == "cpu" and kind in ("auto", "compiled"):
        found = _compiled(forced=kind == "compiled")
        if found is not None:
            return found
    nominees = _few_bits(forced=kind == "torch") if device_type == "cpu" and kind != "plain" else ()
    if nominees:
        name, select = f"torch ({nominees[0].name} nominees)", Candidates(*nominees).select
        return Kernels(name, *sparse.FUNCTIONS, select)
    return Kernels("torch", *sparse.FUNCTIONS)


def _triton_builds() -> bool:
    """Whether Triton is here and, if there is a device to try it on, builds a kernel: it needs a C compiler."""
    if find_spec("triton") is None:
        return False
    try:
        from overtone.dictionaries.kernels.halves import halves_of

        if torch.cuda.is_available():
            halves_of(torch.ones(1, 1, device="cuda"))
    except Exception as error:
        log.warning("torch's own kernels run, which are slower: Triton cannot build kernels here: %s", error)
        return False
    return True


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
    from overtone.dictionaries.kernels.compiler import BuildError
    from overtone.dictionaries.kernels.native import MACHINE, Native

    nominees = _nominees()
    try:
        native = Native(MACHINE, nominees=nominees)
    except BuildError as error:
        if forced or nominees:
            name = "OVERTONE_NOMINEES" if nominees else "OVERTONE_KERNELS"
            raise SettingError(
                f"{name}={nominees or 'compiled'}, but {error}. Change that, or unset the variable."
            ) from None
        log.info("torch's own kernels run: %s", error)
        return None
    if native.level == 0 and not forced:
        return None
    product, update = NativeProduct(native.library, native.amx), NativeUpdate(native.library)
    return Kernels(native.name, *native.functions, native.select, product, update, native.rows.in_units)
