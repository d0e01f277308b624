"""Remove the component along the direction (directional ablation)."""

from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor

from overtone.core.catalogue import enrol
from overtone.directions.direction import Direction
from overtone.steering.edit import Edit


@enrol(
    "edits",
    "remove",
    paper="Refusal is mediated by a single direction, arXiv 2406.11717",
    example={},
    laws=("idempotent",),
)
@dataclass(frozen=True)
class Remove(Edit):
    """h - v v.h: projects v out. Doing it twice is doing it once; afterwards v.h is 0.

    Conserves the part orthogonal to v, and rows without a component along v.
    """

    conserves = frozenset({"complement", "zero"})

    def apply(self, rows: Float[Tensor, "rows width"], direction: Direction) -> Float[Tensor, "rows width"]:
        """h - v v.h."""
        v = direction.like(rows)
        return rows - direction.project(rows)[:, None] * v
