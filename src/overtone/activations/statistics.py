"""What is known about a population of rows: count, mean, second moments, norms; accumulated in float64, mergeable."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from overtone.core.errors import DataError

_CHUNK_ROWS = 4096  # what is held in float64 at a time


@dataclass(frozen=True, eq=False)
class Statistics:
    """Moments of rows at one site.

    count: rows; mean: (width,) float64; second_moment: (width,) float64, mean of the square of each coordinate (not
    centred); mean_norm: mean Euclidean norm of a row, in units of the states.
    """

    count: int
    mean: Float[Tensor, " width"]
    second_moment: Float[Tensor, " width"]
    mean_norm: float

    @property
    def mean_squared_norm(self) -> float:
        """Mean of the squared norm of a row."""
        return float(self.second_moment.sum())

    @property
    def variance(self) -> Float[Tensor, " width"]:
        """(width,) float64: variance of each coordinate around its mean, not negative."""
        return (self.second_moment - self.mean**2).clamp(min=0)

    @classmethod
    def of(cls, rows: Float[Tensor, "rows width"]) -> Statistics:
        """Statistics of a matrix of rows. Raises DataError if it has no row."""
        return cls.merged(cls._of_chunk(chunk) for chunk in rows.detach().split(_CHUNK_ROWS) if len(chunk))

    @classmethod
    def _of_chunk(cls, rows: Tensor) -> Statistics:
        x = rows.double().cpu()
        return cls(len(x), x.mean(0), (x * x).mean(0), float(x.norm(dim=1).mean()))

    @classmethod
    def merged(cls, parts: Iterable[Statistics]) -> Statistics:
        """Statistics of all rows of several parts together. Raises DataError if there is no part."""
        parts = list(parts)
        count = sum(p.count for p in parts)
        if count == 0:
            raise DataError("statistics of no rows are undefined. Check that texts and positions select any.")
        mean = torch.stack([p.mean * (p.count / count) for p in parts]).sum(0)
        second = torch.stack([p.second_moment * (p.count / count) for p in parts]).sum(0)
        return cls(count, mean, second, sum(p.mean_norm * p.count for p in parts) / count)

    def to_dict(self) -> dict[str, Any]:
        """Plain data that `from_dict` restores exactly, with the mean squared norm added for readers."""
        return {
            "count": self.count,
            "mean_norm": self.mean_norm,
            "mean_squared_norm": self.mean_squared_norm,
            "mean": self.mean.tolist(),
            "second_moment": self.second_moment.tolist(),
        }

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> Statistics:
        """Statistics from what `to_dict` gave. Raises KeyError if a part is missing."""
        mean, second = (torch.tensor(data[key], dtype=torch.float64) for key in ("mean", "second_moment"))
        return cls(int(data["count"]), mean, second, float(data["mean_norm"]))
