"""Set the component along the direction, on one side or on both."""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from overtone.core.catalogue import enrol
from overtone.core.settings import require
from overtone.directions.direction import Direction
from overtone.steering.edit import Edit
from overtone.steering.strength import Strength, as_strength


@enrol(
    "edits", "clamp", paper="Scaling Monosemanticity, 2024; AxBench, arXiv 2501.17148", example={"value": 0.7},
    knob="value", laws=("sets", "idempotent"),
)  # fmt: skip
@dataclass(frozen=True)
class Clamp(Edit):
    """h + (c - v.h) v: the projection on v becomes c. side="at_least" acts only where it is below c, "at_most" only
    above.

    value: a number is absolute, in the state's units; the unit "projection" counts typical projections. Rows on the
    allowed side are returned bit for bit. Conserves the part orthogonal to v. c = the projection of a reference point
    mu is the affine removal h - v v.(h - mu). Raises SettingError for another side.
    """

    value: Strength | float
    side: str = "both"
    conserves = frozenset({"complement"})

    def __post_init__(self) -> None:
        sides = ("both", "at_least", "at_most")
        require(self.side in sides, f"side={self.side!r}: use one of {', '.join(sides)}.")

    def apply(self, rows: Float[Tensor, "rows width"], direction: Direction) -> Float[Tensor, "rows width"]:
        """h + (c - v.h) v, where the side asks for it."""
        v = direction.like(rows)
        missing = as_strength(self.value).absolute(direction) - direction.project(rows)
        moved = rows + missing[:, None] * v
        if self.side == "both":
            return moved
        acts = missing > 0 if self.side == "at_least" else missing < 0
        return torch.where(acts[:, None], moved, rows)
