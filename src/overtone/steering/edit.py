"""`Edit`: what happens to rows of states, given a direction. No positions, no layers: those belong to `When` and
`Site`.

Laws, tested over the whole catalogue:
1. rows are independent: a row's result does not depend on the others;
2. the caller's rows are never modified;
3. what `conserves` declares is left as it was;
4. an edit that `is_identity` returns the very same values, bit for bit.
"""

from abc import ABC, abstractmethod
from dataclasses import fields
from typing import Any, ClassVar

from jaxtyping import Float
from torch import Tensor

from overtone.directions.direction import Direction

CONSERVED = {
    "complement": "the part of each row orthogonal to the direction",
    "norm": "the norm of each row",
    "size": "the absolute projection on the direction",
    "zero": "rows without a component along the direction",
    "angle_away": "the direction of the part of each row orthogonal to the direction (its length may change)",
    "error": "what the dictionary does not explain: h' minus the decoded changed code is h minus the decoded code",
}


class Edit(ABC):
    """An edit: (rows, direction) -> rows. Leaves are frozen dataclasses; to tweak one, wrap it."""

    conserves: ClassVar[frozenset[str]] = frozenset()
    """Names from CONSERVED."""

    @abstractmethod
    def apply(self, rows: Float[Tensor, "rows width"], direction: Direction) -> Float[Tensor, "rows width"]:
        """The edited rows, same shape and dtype; `rows` itself (or an equal tensor) when the edit is the identity.

        Raises ShapeError if the direction has another width.
        """

    @property
    def is_identity(self) -> bool:
        """True if these settings leave every row as it is."""
        return False

    def describe(self) -> dict[str, Any]:
        """Kind and settings as plain data, for provenance."""
        settings = {f.name: getattr(self, f.name) for f in fields(self)}  # type: ignore[arg-type]
        plain = {k: v if isinstance(v, int | float | str | None) else str(v) for k, v in settings.items()}
        return {"edit": type(self).__name__, **plain}


def mean_change(edit: Edit, direction: Direction, rows: Float[Tensor, "rows width"]) -> float:
    """Mean ||h' - h|| that an edit causes over rows, in the state's units: edits of one mean change are a fair
    comparison.
    """
    return float((edit.apply(rows, direction) - rows).double().norm(dim=-1).mean())
