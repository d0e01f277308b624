"""Reflect rows: turn the sign of the component along the direction."""

from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor

from overtone.core.catalogue import enrol
from overtone.directions.direction import Direction
from overtone.steering.edit import Edit


@enrol("edits", "flip", paper="RISE, arXiv 2512.23988 (alpha = 2)", example={}, laws=("involution",))
@dataclass(frozen=True)
class Flip(Edit):
    """h - 2 v v.h: mirrors each row on the hyperplane orthogonal to v; doing it twice undoes it.

    Conserves the part orthogonal to v, the norm, and the absolute projection on v.
    """

    conserves = frozenset({"complement", "norm", "size", "zero"})

    def apply(self, rows: Float[Tensor, "rows width"], direction: Direction) -> Float[Tensor, "rows width"]:
        """h - 2 v v.h."""
        v = direction.like(rows)
        return rows - 2 * direction.project(rows)[:, None] * v
