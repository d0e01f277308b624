"""Any edit, followed by giving each row its old length back."""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from overtone.core.catalogue import enrol
from overtone.directions.direction import Direction
from overtone.steering.edit import Edit
from overtone.steering.edits.add import Add


@enrol(
    "edits", "norm_preserving", paper="",
    identity={"edit": Add(0.0)}, example={"edit": Add(1.5)}, knob="edit",
)  # fmt: skip
@dataclass(frozen=True)
class NormPreserving(Edit):
    """h' ||h|| / ||h'||, where h' is the inner edit's result: the row turns, its length stays.

    Conserves the norm of each row, and the direction of its part orthogonal to v if the inner edit conserves that
    part. A row that the inner edit turns into zero has no direction left and is returned as it was.
    """

    edit: Edit
    conserves = frozenset({"norm", "angle_away"})

    @property
    def is_identity(self) -> bool:
        """True if the inner edit is."""
        return self.edit.is_identity

    def apply(self, rows: Float[Tensor, "rows width"], direction: Direction) -> Float[Tensor, "rows width"]:
        """h' ||h|| / ||h'||."""
        edited = self.edit.apply(rows, direction)
        if self.is_identity:
            return rows
        norm = edited.norm(dim=-1, keepdim=True)
        turned = edited * (rows.norm(dim=-1, keepdim=True) / norm.clamp_min(torch.finfo(rows.dtype).tiny))
        return torch.where(norm > 0, turned, rows)
