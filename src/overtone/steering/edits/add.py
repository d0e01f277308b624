"""Add a multiple of the direction."""

from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor

from overtone.core.catalogue import enrol
from overtone.directions.direction import Direction
from overtone.steering.edit import Edit
from overtone.steering.strength import Strength, as_strength


@enrol(
    "edits", "add", paper="CAA, arXiv 2312.06681; SEAL, arXiv 2504.07986",
    identity={"strength": 0.0}, example={"strength": 1.5}, knob="strength",
)  # fmt: skip
@dataclass(frozen=True)
class Add(Edit):
    """h + c v: moves every row by the same amount c (a number is absolute, in the state's units).

    Conserves the part orthogonal to v. The same as adding c to a latent of a dictionary whose atom is v. SEAL: anchors
    `next`, Strength(1, "raw"). Source: contrastive activation addition.
    """

    strength: Strength | float
    conserves = frozenset({"complement"})

    @property
    def is_identity(self) -> bool:
        """True at strength 0."""
        return as_strength(self.strength).value == 0

    def apply(self, rows: Float[Tensor, "rows width"], direction: Direction) -> Float[Tensor, "rows width"]:
        """h + c v."""
        v = direction.like(rows)
        return rows if self.is_identity else rows + as_strength(self.strength).absolute(direction) * v
