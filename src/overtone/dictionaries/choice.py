"""What a selection has chosen: places, and what was computed to find them."""

from collections.abc import Callable
from dataclasses import dataclass, field

from torch import Tensor

from overtone.dictionaries.codes import Support, positions
from overtone.dictionaries.encoders.base import Heads

Settle = Callable[[Support, Tensor], Tensor | None]
"""What `Selection.settle` is: nominees and their scores -> mask of those that are active, or None."""


@dataclass(frozen=True, eq=False)
class Chosen:
    """Selected places, their pre-activations (n,) and further heads (n,) that selection computed, all without
    gradients; peaks: (latents,) the largest pre-activation of each latent in the batch, where asked for; lengths:
    (rows,) of the centred states, where they came for nothing."""

    support: Support
    u: Tensor
    sides: Heads = field(default_factory=dict)
    peaks: Tensor | None = None
    lengths: Tensor | None = None

    def kept(self, keep: Tensor) -> "Chosen":
        """The places of an (n,) mask."""
        which = positions(keep)
        sides = {name: side.index_select(0, which) for name, side in self.sides.items()}
        return Chosen(self.support.taken(which), self.u.index_select(0, which), sides, self.peaks, self.lengths)


def everywhere(vector: Tensor) -> Tensor:
    """A (latents,) vector in the layout of (rows, latents): broadcasting does it."""
    return vector
