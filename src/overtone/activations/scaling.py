"""Scaling of rows, fitted once and exactly invertible: settings of a learner then mean the same for every model."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from overtone.activations.source import ActivationSource
from overtone.activations.statistics import Statistics
from overtone.core.batch import require_finite
from overtone.core.errors import DataError, SettingError, ShapeError, nearest
from overtone.core.sites import Site

KINDS = ("none", "scale", "standardise")


@dataclass(frozen=True, eq=False)
class Scaling:
    """The affine map x -> (x - centre) * factor, coordinate by coordinate.

    kind: `none` (identity), `scale` (one factor, so that E||x||^2 = width) or `standardise` (each coordinate gets mean
    0 and variance 1; a constant one is only centred). centre, factor: (width,) float32, factor > 0. Law: fitting on c *
    rows (c > 0) and applying to c * x gives what fitting on rows and applying to x gives.
    """

    kind: str
    centre: Float[Tensor, " width"]
    factor: Float[Tensor, " width"]

    @classmethod
    def fit(
        cls, rows: Tensor | Statistics | ActivationSource, kind: str = "scale", *, site: Site | None = None
    ) -> Scaling:
        """Fit on (rows, width) states, on their statistics, or on a source (site: which of its sites, if several).

        Raises SettingError for an unknown kind, DataError if the rows hold NaN or are all zero.
        """
        if kind not in KINDS:
            raise SettingError(f"kind={kind!r}.{nearest(kind, KINDS)} Use one of {', '.join(KINDS)}.")
        known = statistics_of(rows, site)
        width = known.mean.shape[0]
        if kind != "none" and known.mean_squared_norm == 0:
            raise DataError(f"all {known.count} rows are zero and cannot be scaled. Check site and positions.")
        centre, factor = torch.zeros(width), torch.ones(width)
        if kind == "scale":
            factor = torch.full((width,), (width / known.mean_squared_norm) ** 0.5)
        if kind == "standardise":
            # Rounding leaves a constant coordinate a variance of about 1e-16 of its square; that is no variance.
            varies = known.variance > 1e-12 * known.second_moment
            centre, factor = known.mean.float(), torch.where(varies, known.variance.rsqrt(), 1.0).float()
        return cls(kind, centre, factor)

    def apply(self, x: Float[Tensor, "*rows width"]) -> Float[Tensor, "*rows width"]:
        """Scaled states, same shape, dtype and device."""
        if self.kind == "none":
            return x
        centre, factor = self._like(x)
        return (x - centre) * factor

    def invert(self, x: Float[Tensor, "*rows width"]) -> Float[Tensor, "*rows width"]:
        """States in the model's own units: invert(apply(x)) = x up to rounding (bit for bit with kind `none`)."""
        if self.kind == "none":
            return x
        centre, factor = self._like(x)
        return x / factor + centre

    def _like(self, x: Tensor) -> tuple[Tensor, Tensor]:
        if x.shape[-1] != self.centre.shape[0]:
            raise ShapeError(f"this scaling was fitted on width {self.centre.shape[0]}; got {tuple(x.shape)}.")
        return self.centre.to(x), self.factor.to(x)

    def to_dict(self) -> dict[str, Any]:
        """Plain data from which `from_dict` restores the same map, bit for bit."""
        return {"kind": self.kind, "centre": self.centre.tolist(), "factor": self.factor.tolist()}

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> Scaling:
        """A scaling from what `to_dict` gave. Raises KeyError if a part is missing."""
        return cls(data["kind"], torch.tensor(data["centre"]), torch.tensor(data["factor"]))


def statistics_of(
    rows: Tensor | Statistics | ActivationSource, site: Site | None = None, *, batch_rows: int = 8192
) -> Statistics:
    """Statistics of rows, of a source's site (a store has them at hand, a stream is read once), or those given.

    Raises DataError if the rows hold NaN or a source has several sites and none is named.
    """
    if isinstance(rows, Statistics):
        return rows
    if isinstance(rows, Tensor):
        return Statistics.of(require_finite(rows, "rows to fit a scaling on"))
    if site is None and len(rows.sites) != 1:
        raise DataError(f"this source holds {', '.join(map(str, rows.sites))}. Name one: site=...")
    site = site or rows.sites[0]
    ready = getattr(rows, "statistics", None)
    if ready is not None:
        return ready(site)
    return Statistics.merged(Statistics.of(batch.at(site)) for batch in rows.batches(batch_rows))
