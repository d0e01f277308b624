"""Normalisers: in which units a dictionary sees the states.

`forward` maps states to the dictionary's units and `inverse` maps back; `unit` is the factor by which codes grow on the
way in, so that codes can be given in the states' units. `spread` is E||x - mean||^2 in the dictionary's units, which
makes losses dimensionless.
"""

import torch
from jaxtyping import Float
from torch import Tensor

from overtone.core.errors import DataError
from overtone.dictionaries.parts import Part


class Normaliser(Part):
    """Base of the normaliser slot. `foldable`: can disappear into the weights, exactly."""

    foldable: bool = False
    spread: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("spread", torch.ones(()))

    @property
    def unit(self) -> Tensor | float:
        """Factor from the states' units to the dictionary's."""
        return 1.0

    def fit(self, rows: Float[Tensor, "rows width"]) -> None:
        """Fit on rows of states. Raises DataError if they do not vary."""
        self.spread.copy_(_spread(rows))

    def inverse(self, x: Tensor) -> Tensor:
        """States in their own units from states in the dictionary's."""
        return x / self.unit

    def forward(self, x: Tensor) -> Tensor:
        """States in the dictionary's units."""
        return x * self.unit


class Unscaled(Normaliser, kind="normaliser.unscaled"):
    """The states as they are. There is nothing to fold."""

    def forward(self, x: Tensor) -> Tensor:
        """The same states."""
        return x

    def inverse(self, x: Tensor) -> Tensor:
        """The same states."""
        return x


class Scale(Normaliser, kind="normaliser.scale"):
    """One factor for all states, such that E||x||^2 = width afterwards; multiplying all states by a constant changes
    nothing. Source: common practice, e.g. Lieberum et al. 2024, arXiv 2408.05147 (there to mean squared norm 1)."""

    foldable = True
    factor: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("factor", torch.ones(()))

    @property
    def unit(self) -> Tensor:
        """The factor."""
        return self.factor

    def fit(self, rows: Float[Tensor, "rows width"]) -> None:
        """Fit the factor and the spread on rows of states. Raises DataError if they do not vary."""
        spread, power = _spread(rows), rows.double().square().sum(1).mean()
        self.factor.copy_((rows.shape[1] / power).sqrt())
        self.spread.copy_(spread * rows.shape[1] / power)


def _spread(rows: Tensor) -> Tensor:
    rows = rows.double()
    spread = (rows - rows.mean(0)).square().sum(1).mean()
    if len(rows) < 2 or not bool(spread > 1e-12 * rows.square().sum(1).mean()):
        raise DataError(
            f"all {len(rows)} rows are equal: there is nothing to decompose. Collect states of more positions."
        )
    return spread
