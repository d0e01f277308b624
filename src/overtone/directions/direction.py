"""A `Direction`: a unit vector that knows where it belongs, how long states are there, and how it was made.

Laws: the vector has norm 1 to float32 accuracy; algebra between directions of different sites, models or widths is
refused; `save` followed by `load` gives an equal direction, bit for bit.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from overtone.core.batch import require_finite
from overtone.core.errors import DataError, ShapeError, SiteError, StoreError
from overtone.core.sites import Site
from overtone.directions import files

UNKNOWN = math.nan
_NUMBERS = ("typical_projection", "mean_projection", "mean_norm", "raw_norm")


@dataclass(frozen=True, eq=False)
class Direction:
    """A unit vector at one site of one model.

    vector: (width,) float32, norm 1. site; model: fingerprint of the model ("" = not bound to one).
    typical_projection: mean |v.h| over the reference rows; mean_projection: mean v.h (signed); mean_norm: mean ||h||;
    all three in the state's own units, NaN while no reference rows were given (`measured`). raw_norm: norm of what
    the finder returned before it was made a unit vector (1 for an atom). origin: plain data, how it was made. name:
    for people. Raises ShapeError if vector is not one-dimensional, DataError if it is zero or not finite.
    """

    vector: Tensor
    site: Site
    model: str = ""
    typical_projection: float = UNKNOWN
    mean_projection: float = UNKNOWN
    mean_norm: float = UNKNOWN
    raw_norm: float = 1.0
    origin: Mapping[str, Any] = field(default_factory=dict)
    name: str = ""

    def __post_init__(self) -> None:
        object.__setattr__(self, "vector", _unit(self.vector, self.name or "a direction"))

    @property
    def width(self) -> int:
        """Number of coordinates of a state at this site."""
        return int(self.vector.shape[0])

    def __str__(self) -> str:
        model = f" of model {self.model}" if self.model else ""
        return f"direction {self.name or '(unnamed)'} ({self.site}, width {self.width}{model})"

    def require(self, *, site: Site | None = None, model: str | None = None, width: int | None = None) -> None:
        """Return quietly if this direction belongs there.

        Raises SiteError naming both for another site or model (an empty fingerprint fits any model), ShapeError for
        another width.
        """
        if site is not None and site != self.site:
            raise SiteError(
                f"{self} cannot be used at {site}. Use it at {self.site}, find one at {site}, or say that you mean it "
                f"with direction.moved('{site}')."
            )
        if model and self.model and model != self.model:
            raise SiteError(
                f"{self} cannot be used in model {model}. Load the model it came from, or find one in this model."
            )
        if width is not None and width != self.width:
            raise ShapeError(f"{self} meets states of width {width}. Find the direction in states of that width.")

    def like(self, rows: Tensor) -> Float[Tensor, " width"]:
        """The unit vector in the dtype and on the device of `rows` (..., width); norm 1 in that dtype's accuracy."""
        v = self.vector
        if rows.shape[-1] != v.shape[0]:
            raise ShapeError(
                f"{self} meets states of width {rows.shape[-1]}. Find the direction in states of that width."
            )
        if v.dtype == rows.dtype and v.device == rows.device:
            return v
        v = v.to(rows.device, rows.dtype)
        return v / v.norm() if rows.dtype == torch.float64 else v

    def project(self, rows: Float[Tensor, "*shape width"]) -> Float[Tensor, "*shape"]:
        """v.h of every row, in the state's units. Raises ShapeError for rows of another width."""
        # Not a matrix product: its rounding depends on the number of rows, and a row must not depend on its company.
        return (rows * self.like(rows)).sum(-1)

    def measured(self, rows: Float[Tensor, "rows width"]) -> "Direction":
        """A copy whose projection and norm statistics come from reference rows, accumulated in float64.

        Raises DataError if there are none or they are not finite, ShapeError for rows of another width.
        """
        if rows.shape[0] == 0:
            raise DataError(f"{self}: no reference rows. Give the states whose projection is the unit of strength.")
        p = self.project(require_finite(rows, "reference rows").double())
        norm = float(rows.double().norm(dim=-1).mean())
        return replace(self, typical_projection=float(p.abs().mean()), mean_projection=float(p.mean()), mean_norm=norm)

    def cosine(self, other: "Direction") -> float:
        """Cosine similarity with another direction of the same place, in [-1, 1]."""
        self._same_place(other)
        return float(self.vector.double() @ other.vector.double())

    def negated(self) -> "Direction":
        """The opposite direction; its signed mean projection changes sign, the other statistics stay."""
        return replace(self, vector=-self.vector, mean_projection=-self.mean_projection, origin=_made("negated", self))

    def combined(self, *others: "Direction", name: str = "") -> "Direction":
        """The mean of the unit vectors, made a unit vector again; statistics unknown until `measured`.

        raw_norm keeps the length of the mean before that, in (0, 1]: 1 means that all agree. Raises DataError if they
        cancel.
        """
        for other in others:
            self._same_place(other)
        mean = torch.stack([d.vector.double() for d in (self, *others)]).mean(0)
        return self._fresh(mean, _made("combined", self, *others), name or "+".join(d.name for d in (self, *others)))

    def orthogonal_to(self, *others: "Direction", name: str = "") -> "Direction":
        """What is left of this direction outside the span of the others, made a unit vector; statistics unknown.

        raw_norm keeps the length of that part, in (0, 1]. Raises DataError if (almost) nothing is left (below 1e-4).
        """
        for other in others:
            self._same_place(other)
        left = self.vector.double()
        if others:
            basis = _span(torch.stack([d.vector.double() for d in others]))
            for _ in range(2):  # once more, for the rounding of the first time
                left = left - basis.T @ (basis @ left)
        if float(left.norm()) < 1e-4:
            raise DataError(
                f"{self} lies in the span of the {len(others)} others; nothing of it is orthogonal to them."
            )
        return self._fresh(left, _made("orthogonal_to", self, *others), name or f"{self.name} (orthogonalised)")

    def moved(self, site: Site | str) -> "Direction":
        """The same vector at another site, on purpose: sites of one residual stream share their coordinates.

        Statistics are unknown there until `measured`; the origin keeps where it came from.
        """
        new = replace(
            self, site=Site.parse(site), typical_projection=UNKNOWN, mean_projection=UNKNOWN, mean_norm=UNKNOWN
        )
        return replace(new, origin=_made("moved", self))

    def save(self, folder: str | Path) -> None:
        """Write the direction into a new folder (safetensors and JSON). Raises StoreError if something else is
        there.
        """
        save_directions(folder, [self])

    @classmethod
    def load(cls, folder: str | Path) -> "Direction":
        """The direction of a folder that `save` wrote. Raises StoreError if it is damaged, foreign, or holds
        several.
        """
        found = load_directions(folder)
        if len(found) != 1:
            names = ", ".join(d.name or "(unnamed)" for d in found)
            raise StoreError(
                f"{folder} holds {len(found)} directions ({names}), not one. Use load_directions and choose."
            )
        return found[0]

    def _same_place(self, other: "Direction") -> None:
        other.require(site=self.site, model=self.model, width=self.width)

    def _fresh(self, vector: Tensor, origin: dict[str, Any], name: str) -> "Direction":
        return Direction(vector, self.site, self.model, raw_norm=float(vector.norm()), origin=origin, name=name)


def _unit(vector: Tensor, what: str) -> Tensor:
    """A float32 copy of norm 1; a vector that has it already is kept bit for bit, so that files round-trip."""
    if vector.ndim != 1:
        raise ShapeError(f"{what}: a direction is one vector of shape (width,), got {tuple(vector.shape)}.")
    exact = vector.detach().cpu().double()
    norm = float(exact.norm())
    if not math.isfinite(norm) or norm == 0.0:
        raise DataError(
            f"{what}: the vector is {'zero' if norm == 0.0 else 'not finite'}; no direction can be made of it."
        )
    if vector.dtype == torch.float32 and abs(norm - 1) < 1e-6:
        return vector.detach().cpu().clone()
    return (exact / norm).float()


def _span(vectors: Tensor) -> Tensor:
    """Orthonormal rows that span `vectors` (n, width), however dependent those are."""
    _, s, basis = torch.linalg.svd(vectors, full_matrices=False)
    return basis[s > 1e-9 * s.max()]


def _made(how: str, *of: Direction) -> dict[str, Any]:
    return {"how": how, "of": [{"name": d.name, "site": str(d.site), "origin": dict(d.origin)} for d in of]}


def unit_direction(
    vector: Tensor,
    site: Site | str,
    *,
    model: str = "",
    rows: Tensor | None = None,
    name: str = "",
    origin: Mapping[str, Any] | None = None,
) -> Direction:
    """A direction from any non-zero vector (width,): unit norm, raw_norm kept, measured over `rows` (n, width) if
    given.
    """
    raw = float(vector.detach().double().norm())
    made = Direction(vector, Site.parse(site), model, raw_norm=raw, origin=dict(origin or {}), name=name)
    return made if rows is None else made.measured(rows)


def same_place(directions: Sequence[Direction]) -> None:
    """Return quietly if all directions share site, model and width; raises SiteError or ShapeError naming two that
    differ.
    """
    for other in directions[1:]:
        directions[0]._same_place(other)


def save_directions(folder: str | Path, directions: Sequence[Direction]) -> None:
    """Write directions, in order, into a new folder (see directions/files.py).

    Raises DataError if there are none, StoreError if the folder holds something that is not an artifact.
    """
    if not directions:
        raise DataError("there is no direction to save. Give at least one.")
    models = sorted({d.model for d in directions if d.model})
    files.write(folder, [d.vector for d in directions], [_facts(d) for d in directions], models)


def load_directions(folder: str | Path) -> list[Direction]:
    """The directions of a folder, in the order they were saved. Raises StoreError if it is damaged or foreign."""
    return [_restored(vector, fact) for vector, fact in files.read(folder)]


def _facts(d: Direction) -> dict[str, Any]:
    numbers = {k: getattr(d, k) for k in _NUMBERS}
    return {"name": d.name, "site": str(d.site), "model": d.model, **numbers, "origin": dict(d.origin)}


def _restored(vector: Tensor, fact: Mapping[str, Any]) -> Direction:
    numbers = {k: UNKNOWN if fact[k] is None else fact[k] for k in _NUMBERS}
    return Direction(
        vector, Site.parse(fact["site"]), fact["model"], origin=fact["origin"], name=fact["name"], **numbers
    )
