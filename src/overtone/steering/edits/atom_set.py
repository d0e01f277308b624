"""Set or scale one latent of a dictionary, keeping what the dictionary does not explain."""

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import torch
from jaxtyping import Float
from torch import Tensor

from overtone.core.catalogue import enrol
from overtone.core.errors import CapabilityError, DataError, SiteError
from overtone.core.settings import require
from overtone.directions.direction import Direction
from overtone.steering.edit import Edit

if TYPE_CHECKING:
    from overtone.dictionaries.dictionary import Dictionary


@enrol(
    "edits", "atom_set", paper="Scaling Monosemanticity, 2024",
    example={"value": 2.0}, knob="value", needs="dictionary",
)  # fmt: skip
@dataclass(frozen=True)
class AtomSet(Edit):
    """h + (c - z_j(h)) w_j: latent j takes the value c, everything else, the reconstruction error included, stays.

    value: c, in the code's units; side="at_least" or "at_most" acts only on rows whose code is below or above. The
    direction must be the latent's atom (`from_atom`). With c = z_j(h) it is the identity. Equals decoding the code
    with z_j = c and adding the error back. Conserves the part orthogonal to the atom. Raises CapabilityError for a
    dictionary whose decoder is not linear, or whose atoms do not lie among the states that it reads.
    """

    dictionary: "Dictionary" = field(repr=False)
    latent: int
    value: float
    side: str = "both"
    conserves = frozenset({"complement", "error"})

    def __post_init__(self) -> None:
        sides = ("both", "at_least", "at_most")
        require(self.side in sides, f"side={self.side!r}: use one of {', '.join(sides)}.")
        require_latent(self.dictionary, self.latent)

    def apply(self, rows: Float[Tensor, "rows width"], direction: Direction) -> Float[Tensor, "rows width"]:
        """h + (c - z_j(h)) w_j."""
        missing = self.value - latent_values(self.dictionary, self.latent, rows)
        moved = rows + missing[:, None] * atom(self.dictionary, self.latent, rows, direction)
        acts = {"both": missing != 0, "at_least": missing > 0, "at_most": missing < 0}[self.side]
        return torch.where(acts[:, None], moved, rows)


@enrol(
    "edits", "attenuate", paper="", identity={"factor": 1.0},
    example={"factor": 0.25}, knob="factor", needs="dictionary",
)  # fmt: skip
@dataclass(frozen=True)
class Attenuate(Edit):
    """h + (a - 1) z_j(h) w_j: latent j keeps a share a of its value; a = 0 ablates it, above 1 amplifies it.

    Rows in which the latent is not active are returned bit for bit; the reconstruction error stays. The direction
    must be the latent's atom. Conserves the part orthogonal to the atom. Raises CapabilityError as AtomSet.
    """

    dictionary: "Dictionary" = field(repr=False)
    latent: int
    factor: float
    conserves = frozenset({"complement", "error"})

    def __post_init__(self) -> None:
        require_latent(self.dictionary, self.latent)

    @property
    def is_identity(self) -> bool:
        """True at factor 1."""
        return self.factor == 1

    def apply(self, rows: Float[Tensor, "rows width"], direction: Direction) -> Float[Tensor, "rows width"]:
        """h + (a - 1) z_j(h) w_j."""
        if self.is_identity:
            return rows
        z = latent_values(self.dictionary, self.latent, rows)
        moved = rows + ((self.factor - 1) * z)[:, None] * atom(self.dictionary, self.latent, rows, direction)
        return torch.where((z != 0)[:, None], moved, rows)


def require_latent(dictionary: "Dictionary", latent: int) -> None:
    """Return quietly if one latent of the dictionary can be edited. Raises DataError or CapabilityError otherwise."""
    if not 0 <= latent < dictionary.n_latents:
        raise DataError(f"latent {latent} does not exist; this dictionary has latents 0 to {dictionary.n_latents - 1}.")
    can = dictionary.capabilities
    if can.predicts_other_states or can.several_views:
        raise CapabilityError(
            "codes are read from the states that an edit changes, and this dictionary's atoms lie elsewhere "
            f"({'it predicts the states of another site' if can.predicts_other_states else 'it has several views'}). "
            "Steer along a direction, from_atom, with add or scale at the site of its atoms."
        )
    if not can.linear_decoder:
        raise CapabilityError(
            "editing one latent while keeping the error needs a linear decoder, which this dictionary has not. "
            "Use a top_k or relu_l1 dictionary, or steer along a direction with add or scale."
        )


def latent_values(dictionary: "Dictionary", latent: int, rows: Float[Tensor, "rows width"]) -> Float[Tensor, " rows"]:
    """z_j of every row, in the code's units; 0 where the latent is not active."""
    return dictionary.encode(rows).column(latent).to(rows)


def atom(dictionary: "Dictionary", latent: int, rows: Tensor, direction: Direction) -> Float[Tensor, " width"]:
    """w_j with its length: what a change of the code by 1 adds to the reconstruction, in the dtype of rows.

    Raises SiteError if the direction is not this atom: it would be steered at the wrong place.
    """
    v = direction.like(rows)
    unit = dictionary.atoms()[latent].detach().to(v)
    if float(v @ unit) < 0.999:
        raise SiteError(
            f"{direction} is not the atom of latent {latent} (cosine {float(v @ unit):.3f}). Use from_atom."
        )
    return unit * dictionary.atom_norms()[latent].detach().to(v)
