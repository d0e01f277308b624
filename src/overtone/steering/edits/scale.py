"""Multiply the component along the direction: remove, weaken, flip or amplify what is there."""

from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor

from overtone.core.catalogue import enrol
from overtone.directions.direction import Direction
from overtone.steering.edit import Edit


@enrol(
    "edits", "scale", paper="RISE, arXiv 2512.23988", identity={"factor": 1.0}, example={"factor": 2.5}, knob="factor",
    laws=("composes",),
)  # fmt: skip
@dataclass(frozen=True)
class Scale(Edit):
    """h + (g - 1) v v.h: the projection on v becomes g times what it was; g = 0 removes it, -1 flips it, above 1
    amplifies.

    RISE's alpha is 1 - g: its alpha = 1 removes. Does nothing to rows without a component along v, so compare with
    `add`. Conserves the part orthogonal to v, and rows without a component. scale(g1) after scale(g2) is scale(g1 g2).
    """

    factor: float
    conserves = frozenset({"complement", "zero"})

    @property
    def is_identity(self) -> bool:
        """True at factor 1."""
        return self.factor == 1

    def apply(self, rows: Float[Tensor, "rows width"], direction: Direction) -> Float[Tensor, "rows width"]:
        """h + (g - 1) v v.h."""
        v = direction.like(rows)
        return rows if self.is_identity else rows + (self.factor - 1) * direction.project(rows)[:, None] * v
