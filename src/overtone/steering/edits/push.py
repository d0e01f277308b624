"""Push rows along the direction, away from or towards the hyperplane where the projection is zero."""

from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor

from overtone.core.catalogue import enrol
from overtone.directions.direction import Direction
from overtone.steering.edit import Edit
from overtone.steering.strength import Strength, as_strength


@enrol(
    "edits", "push", paper="Representation engineering, arXiv 2310.01405 (piecewise operator)",
    identity={"strength": 0.0}, example={"strength": 1.5}, knob="strength",
)  # fmt: skip
@dataclass(frozen=True)
class Push(Edit):
    """h + sign(v.h) c v: a positive c strengthens whichever sign of v a row has, a negative one weakens it.

    Conserves the part orthogonal to v, and rows without a component along v.
    """

    strength: Strength | float
    conserves = frozenset({"complement", "zero"})

    @property
    def is_identity(self) -> bool:
        """True at strength 0."""
        return as_strength(self.strength).value == 0

    def apply(self, rows: Float[Tensor, "rows width"], direction: Direction) -> Float[Tensor, "rows width"]:
        """h + sign(v.h) c v."""
        v = direction.like(rows)
        if self.is_identity:
            return rows
        return rows + as_strength(self.strength).absolute(direction) * direction.project(rows).sign()[:, None] * v
