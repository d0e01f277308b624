"""Scale the component along the direction around a reference point instead of around zero."""

from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor

from overtone.core.catalogue import enrol
from overtone.directions.direction import Direction
from overtone.steering.edit import Edit
from overtone.steering.strength import Strength, as_strength


@enrol(
    "edits", "scale_around", paper="affine directional ablation; see arXiv 2411.09003",
    identity={"factor": 1.0, "centre": 0.4}, example={"factor": 0.0, "centre": 0.4},
    knob="factor", laws=("idempotent",),
)  # fmt: skip
@dataclass(frozen=True)
class ScaleAround(Edit):
    """h + (g - 1) v (v.h - r): the projection's distance from r becomes g times what it was.

    g = 0 is the affine removal h - v v.(h - mu) with r = v.mu, right when the classes do not straddle the origin.
    centre: r, absolute or with a unit; None takes the direction's mean_projection. Conserves the part orthogonal to
    v, and at g = 0 doing it twice is doing it once. Raises SettingError if the direction has no mean_projection and
    none is given.
    """

    factor: float
    centre: Strength | float | None = None
    conserves = frozenset({"complement"})

    @property
    def is_identity(self) -> bool:
        """True at factor 1."""
        return self.factor == 1

    def apply(self, rows: Float[Tensor, "rows width"], direction: Direction) -> Float[Tensor, "rows width"]:
        """h + (g - 1) v (v.h - r)."""
        v = direction.like(rows)
        if self.is_identity:
            return rows
        r = as_strength(direction.mean_projection if self.centre is None else self.centre).absolute(direction)
        return rows + (self.factor - 1) * (direction.project(rows) - r)[:, None] * v
