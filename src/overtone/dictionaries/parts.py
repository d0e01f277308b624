"""Parts: the small objects that fill a dictionary's slots, and how they are rebuilt from plain data.

A part is a torch module that knows the plain arguments it was made with. `spec()` writes them down, `rebuild` makes an
equal part (without its learned values, which travel as a state dict). A new part needs its file and nothing else: parts
register themselves by the `kind` given in the class line, and `rebuild` reads every file of this room first.
"""

import importlib
import pkgutil
from collections.abc import Mapping
from typing import Any, ClassVar

from torch import Tensor, nn

from overtone.core.errors import CapabilityError, StoreError, nearest

_KINDS: dict[str, type["Part"]] = {}
_ROOM, _NO_PARTS = "overtone.dictionaries", "overtone.dictionaries.kernels"  # these want what may not be installed


class Part(nn.Module):
    """Base of what a saved dictionary is made of. Subclass as `class Linear(Encoder, kind="encoder.linear")`."""

    kind: ClassVar[str] = ""
    per_latent: ClassVar[
        tuple[str, ...]
    ] = ()  # parameters and buffers whose first axis is latents; row surgery uses it

    sliceable: ClassVar[bool] = False  # works the same on a slice of the latents, elsewhere the others
    indivisible: ClassVar[str] = ""  # why it never can, where that is so

    def __init_subclass__(cls, *, kind: str = "", **rest: Any) -> None:
        super().__init_subclass__(**rest)
        if kind:
            cls.kind = kind
            _KINDS[kind] = cls

    def arguments(self) -> dict[str, Any]:
        """The constructor's arguments as plain data (parts as their specs)."""
        return {}

    def spec(self) -> dict[str, Any]:
        """Plain data from which `rebuild` makes an equal part, learned values aside."""
        return {"kind": self.kind, **self.arguments()}

    def scale_codes(self, factor: float) -> None:
        """Change this part in place so that the dictionary's codes are `factor` times as large; folding uses it."""

    def scale_input(self, factor: Tensor | float) -> None:
        """Change this part in place so that it does with a state what it did with `factor` times the state; folding
        uses it where states are scaled by other factors than codes. factor: a number, or (width,)."""

    def scale_output(self, factor: Tensor | float) -> None:
        """Change this part in place so that the reconstruction is `factor` times as large; folding uses it where
        coordinates have scales of their own. factor: a number, or (width_out,)."""

    def scale_latents(self, factors: Tensor) -> None:
        """Change this part in place so that latent i's code is factors[i] times as large, factors (latents,), and the
        reconstruction the same; `rescale` uses it. Raises CapabilityError for parts that cannot."""
        raise CapabilityError(f"{self.kind} cannot be rescaled latent by latent. Use the dictionary as it is.")


def rebuild(spec: Mapping[str, Any]) -> Any:
    """The part that a spec describes. Raises StoreError for an unknown kind, naming the nearest known one."""
    kind = spec.get("kind", "")
    if kind not in _KINDS:
        for module in pkgutil.walk_packages(importlib.import_module(_ROOM).__path__, _ROOM + "."):
            if not module.name.startswith(_NO_PARTS):
                importlib.import_module(module.name)
    if kind not in _KINDS:
        raise StoreError(f"this overtone has no part {kind!r}.{nearest(kind, _KINDS)} Update overtone, or train again.")
    arguments = {k: rebuild(v) if isinstance(v, Mapping) and "kind" in v else v for k, v in spec.items() if k != "kind"}
    return _KINDS[kind](**arguments)
