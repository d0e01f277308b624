"""Normalisers: in which units a dictionary sees the states.

`forward` maps states to the dictionary's units and `inverse` maps back; `unit` is the factor by which codes grow on the
way in, so that codes can be given in the states' units. `spread` is E||x - mean||^2 in the dictionary's units, which
makes losses dimensionless.
"""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from overtone.core.errors import DataError
from overtone.dictionaries.parts import Part


class Normaliser(Part):
    """Base of the normaliser slot. `foldable`: can disappear into the weights, exactly; `rowwise`: every row has a unit
    of its own, so that undoing it takes the rows."""

    foldable: bool = False
    rowwise: bool = False
    spread: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("spread", torch.ones(()))

    @property
    def unit(self) -> Tensor | float:
        """Factor from the states' units to the dictionary's."""
        return 1.0

    @property
    def factors(self) -> Tensor | float:
        """As `unit`, or (width,) factors where coordinates have their own; `unit` then is a typical one."""
        return self.unit

    def fit(self, rows: Float[Tensor, "rows width"]) -> None:
        """Fit on rows of states. Raises DataError if they do not vary."""
        self.spread.copy_(spread_of(rows))

    def units(self, rows: Tensor | None) -> Tensor | float:
        """The factor, or (rows, 1) factors where every row has its own; these come from the rows that were encoded.
        Raises DataError if they are needed and not given."""
        return self.unit

    def units_at(self, rows: Tensor, places: Tensor) -> Tensor | float:
        """The factor, or (n,) factors of the rows that `places` (n,) names."""
        return self.unit

    def inverse(self, x: Tensor, rows: Tensor | None = None) -> Tensor:
        """States in their own units from states in the dictionary's; `rows` as for `units`."""
        return x / self.factors

    def forward(self, x: Tensor) -> Tensor:
        """States in the dictionary's units."""
        return x * self.factors


class Unscaled(Normaliser, kind="normaliser.unscaled"):
    """The states as they are. There is nothing to fold."""

    sliceable = True

    def forward(self, x: Tensor) -> Tensor:
        """The same states."""
        return x

    def inverse(self, x: Tensor, rows: Tensor | None = None) -> Tensor:
        """The same states."""
        return x


class Scale(Normaliser, kind="normaliser.scale"):
    """One factor for all states, such that E||x||^2 = width afterwards; multiplying all states by a constant changes
    nothing. Source: common practice, e.g. Lieberum et al. 2024, arXiv 2408.05147 (there to mean squared norm 1)."""

    foldable = True
    sliceable = True
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
        spread, power = spread_of(rows), rows.double().square().sum(1).mean()
        self.factor.copy_((rows.shape[1] / power).sqrt())
        self.spread.copy_(spread * rows.shape[1] / power)


class Rowwise(Normaliser):
    """Base of normalisers that bring each row to a size of its own. Codes are in the states' units all the same: a
    latent adds the same atom in every row. For dictionaries that were trained so elsewhere."""

    rowwise = True
    sliceable = True

    def forward(self, x: Tensor) -> Tensor:
        """Each row less its middle, over its size."""
        middle, size = self.measured(x)
        return (x - middle) / (size + self.floor)

    def units(self, rows: Tensor | None) -> Tensor:
        """(rows, 1) reciprocal sizes."""
        return 1 / self.measured(_there(rows))[1].clamp(min=1e-12)

    def units_at(self, rows: Tensor, places: Tensor) -> Tensor:
        """(n,) reciprocal sizes."""
        return self.units(rows)[places, 0]

    def inverse(self, x: Tensor, rows: Tensor | None = None) -> Tensor:
        """Each row times the size of the row it came from, plus its middle."""
        middle, size = self.measured(_there(rows))
        return x * size + middle

    floor: float = 0.0

    def measured(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        """Middle and size of each row, (rows, 1)."""
        raise NotImplementedError


class Standardised(Rowwise, kind="normaliser.standardised"):
    """Each row less its mean over its standard deviation (of width - 1 degrees of freedom, plus 1e-5 on the way in).
    Source: the code of Gao et al. 2024, arXiv 2406.04093."""

    floor = 1e-5

    def measured(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation."""
        return rows.mean(1, keepdim=True), rows.std(1, keepdim=True)


class FixedNorm(Rowwise, kind="normaliser.fixed_norm"):
    """Each row scaled to the norm sqrt(width). Source: SAELens, `constant_norm_rescale`."""

    def measured(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        """0 and the norm over sqrt(width)."""
        size = rows.norm(dim=1, keepdim=True) / rows.shape[1] ** 0.5
        return torch.zeros_like(size), size.clamp(min=1e-12)


def _there(rows: Tensor | None) -> Tensor:
    if rows is None:
        raise DataError("every row has a unit of its own here: decode(codes, x) takes the encoded states too.")
    return rows


class ViewScale(Normaliser, kind="normaliser.view_scale"):
    """One factor per view of states that lie beside each other, (rows, sum of widths), such that E||x_v||^2 = width_v
    for each: no view counts more because its numbers are larger. Source: Anthropic's crosscoders, October 2024."""

    foldable = True
    sliceable = True
    view_factors: Tensor
    overall: Tensor

    def __init__(self, widths: Sequence[int]) -> None:
        super().__init__()
        self.widths = tuple(widths)
        self.register_buffer("view_factors", torch.ones(len(self.widths)))
        self.register_buffer("overall", torch.ones(()))

    def arguments(self) -> dict[str, list[int]]:
        """widths of the views."""
        return {"widths": list(self.widths)}

    @property
    def unit(self) -> Tensor:
        """The factor that `Scale` would have."""
        return self.overall

    @property
    def factors(self) -> Tensor:
        """(width,) each coordinate's factor."""
        return torch.cat([factor.expand(n) for factor, n in zip(self.view_factors, self.widths, strict=True)])

    def fit(self, rows: Float[Tensor, "rows width"]) -> None:
        """Fit the factors and the spread. Raises DataError if the states, or those of one view, do not vary."""
        powers = [part.double().square().sum(1).mean() for part in rows.split(self.widths, 1)]
        spreads = [spread_of(part) for part in rows.split(self.widths, 1)]
        scales = [width / power for width, power in zip(self.widths, powers, strict=True)]
        self.view_factors.copy_(torch.stack(scales).sqrt())
        self.overall.copy_((rows.shape[1] / torch.stack(powers).sum()).sqrt())
        self.spread.copy_(torch.stack([spread * by for spread, by in zip(spreads, scales, strict=True)]).sum())


def spread_of(rows: Float[Tensor, "rows width"]) -> Tensor:
    """() float64 E||x - mean||^2 of rows. Raises DataError if they do not vary."""
    rows = rows.double()
    spread = (rows - rows.mean(0)).square().sum(1).mean()
    if len(rows) < 2 or not bool(spread > 1e-12 * rows.square().sum(1).mean()):
        told = f"all {len(rows)} rows are equal" if len(rows) > 1 else "there is one row only"
        raise DataError(f"{told}: there is nothing to decompose. Collect states of more positions.")
    return spread
