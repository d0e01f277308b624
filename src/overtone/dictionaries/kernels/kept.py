"""What kernels make of a parameter, kept until that changes. Who changes it can renew what is kept."""

import weakref
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from overtone.dictionaries.kernels import memory


@dataclass(eq=False)
class Kept:
    """What was found of a parameter in some version of it."""

    parameter: weakref.ref[torch.nn.Parameter]
    version: int
    found: Any

    def serves(self, rows: Tensor) -> bool:
        """Whether the parameter, as it is now, is what these rows are, under whatever name."""
        parameter = self.parameter()
        return (
            parameter is not None
            and parameter.data_ptr() == rows.data_ptr()
            and parameter.shape == rows.shape
            and parameter._version == rows._version == self.version
        )


@dataclass(frozen=True)
class Squares:
    """The sum of the squares of all numbers."""

    sum: float


KEPT: dict[tuple[type, int], Kept] = {}  # by what is kept and the parameter's address
memory.ON_RELEASE.append(KEPT.clear)


def kept(kind: type, rows: Tensor) -> Kept | None:
    """What of this kind is kept of rows as they are now."""
    known = KEPT.get((kind, rows.data_ptr()))
    return known if known is not None and known.serves(rows) else None


def keep(rows: Tensor, found: Any) -> None:
    """Keep what was found of rows, if they are a parameter."""
    if isinstance(rows, torch.nn.Parameter) and rows.is_contiguous():
        key = type(found), rows.data_ptr()
        KEPT[key] = Kept(weakref.ref(rows, lambda _: KEPT.pop(key, None)), rows._version, found)
