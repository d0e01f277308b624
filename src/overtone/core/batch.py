"""Rows of activations that travel together, and where each of them comes from."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from overtone.core.errors import DataError, ShapeError

if TYPE_CHECKING:
    from collections.abc import Mapping

    import torch
    from torch import Tensor

    from overtone.core.sites import Site


@dataclass(frozen=True)
class Where:
    """Origin of each row: three int64 tensors of shape (rows,).

    document: index of the text; token: position in its token sequence (the last one, for a pooled row);
    step: index of the reasoning step, -1 where rows are not steps.
    """

    document: Tensor
    token: Tensor
    step: Tensor

    def __len__(self) -> int:
        return int(self.document.shape[0])

    def select(self, rows: Tensor) -> Where:
        """The origins of some rows; rows is an index or boolean tensor."""
        return Where(self.document[rows], self.token[rows], self.step[rows])


@dataclass(frozen=True)
class ActivationBatch:
    """States at one or several sites for the same rows.

    x: site -> (rows, width) floating tensor; where: origin of each row; y (targets), g (gradients of the loss with
    respect to x, same shape) and weights (rows,) are there only when asked for.
    """

    x: Mapping[Site, Tensor]
    where: Where
    y: Mapping[Site, Tensor] | None = None
    g: Mapping[Site, Tensor] | None = None
    weights: Tensor | None = None

    def __post_init__(self) -> None:
        for site, rows in self.x.items():
            if rows.ndim != 2 or rows.shape[0] != len(self.where):
                raise ShapeError(f"{site}: expected ({len(self.where)}, width), got {tuple(rows.shape)}.")
        for site, rows in (self.y or {}).items():
            if rows.ndim != 2 or rows.shape[0] != len(self.where):
                raise ShapeError(f"targets at {site}: expected ({len(self.where)}, width), got {tuple(rows.shape)}.")
        for site, rows in (self.g or {}).items():
            if site in self.x and rows.shape != self.x[site].shape:
                states, found = tuple(self.x[site].shape), tuple(rows.shape)
                raise ShapeError(
                    f"gradients at {site}: expected {states} as the states, got {found}. Give those of the same rows."
                )

    def __len__(self) -> int:
        return len(self.where)

    def at(self, site: Site) -> Tensor:
        """The (rows, width) states at a site. Raises DataError if the batch does not hold it."""
        if site not in self.x:
            raise DataError(
                f"this batch holds {', '.join(map(str, self.x))}; {site} was not collected. Collect it first."
            )
        return self.x[site]

    def select(self, rows: Tensor) -> ActivationBatch:
        """The same batch with some rows only; rows is an index or boolean tensor of shape (n,)."""

        def pick(part: Mapping[Site, Tensor] | None) -> dict[Site, Tensor] | None:
            return None if part is None else {s: t[rows] for s, t in part.items()}

        weights = None if self.weights is None else self.weights[rows]
        return replace(
            self, x=pick(self.x) or {}, where=self.where.select(rows), y=pick(self.y), g=pick(self.g), weights=weights
        )


def require_finite(x: torch.Tensor, what: str) -> torch.Tensor:
    """Return x unchanged, or raise DataError naming `what` and the first bad row if it holds NaN or infinity."""
    import torch

    if x.is_floating_point() and x.numel() and bool(torch.stack(x.aminmax()).isfinite().all()):
        return x  # a mask would take ten times as long
    good = torch.isfinite(x).flatten(1).all(1) if x.ndim > 1 else torch.isfinite(x)
    if not bool(good.all()):
        first = int((~good).nonzero()[0])
        raise DataError(
            f"{what}: {int((~good).sum())} of {len(good)} rows hold NaN or infinity (first: row {first}). "
            "Load the model in float32 or bfloat16 instead of float16, or drop these rows."
        )
    return x
