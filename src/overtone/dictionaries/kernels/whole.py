"""Bounds as in `bounds.py`, in whole numbers: half the memory of bf16 and passes over it that take half as long.

y is rounded up to steps of a grid and fits a byte, as does 1 + f + z, or is 255 and means that and more. Keys are their
products. The grid is guessed from what rows before showed. If a y is cut off its key is still so large that limits can
be kept below all such keys; where a z is cut off, or bounds take only some of the grid, it is made anew.
"""

from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from overtone.dictionaries.kernels import threads
from overtone.dictionaries.kernels.bounds import GROUP, ROWS, Limits, Problem, true_places
from overtone.dictionaries.kernels.rounded import Rounded, Short

MOST = 255
HALF = 0.51  # of a step, by which numbers may be rounded down
EXACT = 1e-5  # more than rounding of float32 numbers changes in proportion
ROOM = 1.1, 1.25  # how much larger levels and z may become within a grid
FEW = 0.4  # share of a grid that they may shrink to
ALL = 0.99  # share of the rows whose level is within the grid
TRIES = 16


@dataclass(eq=False)
class Seen:
    """What earlier rows showed: their levels in the rows' steps, largest z, and by kinds of few bits how far k-th scores
    lie below levels; see `Limits.excess`."""

    level: float = 1.0
    z: float = 1.0
    gaps: dict[str, Tensor] = field(default_factory=dict)


@dataclass(eq=False)
class Whole:
    """keys: (rows, latents) whole numbers, b / (1 + f) in `unit`s; most: keys are no smaller if a y was cut off;
    levels: (rows,) keys that at least k of a row's are not below; z: (rows, latents) z in steps plus `none`, where there are
    boosts."""

    keys: np.ndarray
    unit: float
    most: int
    levels: np.ndarray
    limits: Limits
    z: np.ndarray | None = None
    none: int = 0
    step: float = 0.0

    @classmethod
    def of(cls, p: Problem, of_u: Rounded, of_v: Rounded | None, seen: Seen) -> "Whole | None":
        """None where they do not serve: states are not finite, gradients not alike, or k-th scores not above 0."""
        rows, boost = of_u.short(p.states), p.rule.boost
        others = None if boost is None or of_v is None else of_v.short(boost.states, alike=True)
        if rows is None or (boost is not None and (others is None or not others.alike)):
            return None
        for _ in range(TRIES):
            found = _Grid.of(of_v, others, seen).bounds(of_u, rows, of_v, others, p.rule.k)
            level = float(np.quantile(found.levels, ALL)) * found.unit
            if found._fits(level, seen):
                return found
            if level <= 0:
                return None
        return None

    def _fits(self, level: float, seen: Seen) -> bool:
        """Whether the grid was right; else what was seen is put right."""
        is_cut = level >= 0.999 * ROOM[0] * seen.level
        fits = not is_cut and level >= FEW * seen.level
        if not fits and level > 0:
            seen.level = level * (1.5 if is_cut else 1.0)
        if self.z is None:
            return fits
        largest = int(self.z.max())
        z = (largest - self.none) * self.step
        if largest == MOST:
            seen.z *= 2
            return False
        if 0 < z < FEW * seen.z:
            seen.z = z
            return False
        return fits

    def level(self, k: int) -> Tensor:
        """As in `Bounds`."""
        return torch.from_numpy(self.levels.astype(np.float32)) * self.unit

    def places(self, least: Tensor) -> Tensor:
        """As in `Bounds`."""
        keys = (least.nan_to_num(0.0) * ((1 - EXACT) / self.unit)).ceil().clamp(0, self.most)
        limits, n_latents = keys.numpy().astype(self.keys.dtype)[:, None], self.keys.shape[1]

        def part(first: int, last: int) -> np.ndarray:
            found = true_places(self.keys[first:last] >= limits[first:last])
            return found + first * n_latents if first else found

        parts = threads.over(len(keys), ROWS, part)
        return torch.from_numpy(parts[0] if len(parts) == 1 else np.concatenate(parts))

    def z_at(self, places: Tensor) -> Tensor | None:
        """As in `Bounds`."""
        if self.z is None:
            return None
        steps = torch.from_numpy(self.z).view(-1).index_select(0, places).float()
        return steps.sub_(self.none - HALF).mul_(self.step / (1 + float(self.limits.f[0])))


@dataclass(frozen=True)
class _Grid:
    """y: a step of y, in the rows' steps; z: of z; none: z = 0 in these, so that `none` steps are 1 + f; f: as in
    `Limits`."""

    y: float
    z: float = 1.0
    none: int = 1
    f: float = 0.0

    @classmethod
    def of(cls, of_v: Rounded | None, others: Short | None, seen: Seen) -> "_Grid":
        """By what was seen."""
        level = ROOM[0] * seen.level
        if of_v is None or others is None:
            return cls(level / MOST)
        f = float(of_v.wrong(others).amax())
        none = int(np.ceil((1 + f) * (MOST - 1) / (1 + f + ROOM[1] * seen.z) + HALF))
        z = (1 + f) / (none - HALF)
        return cls(level * (1 + f) / (MOST * none * z), z, none, f)

    def bounds(self, of_u: Rounded, rows: Short, of_v: Rounded | None, others: Short | None, k: int) -> Whole:
        """Those of a block of rows."""
        added, spare, e = of_u.added(rows)
        y = of_u.kind.whole(rows.rounded, of_u.packed, of_u.steps, added + HALF * self.y, self.y).numpy()
        limits = Limits(rows.steps, torch.full_like(spare, self.f), spare, (e + HALF * self.y).expand_as(spare), EXACT)
        if of_v is None or others is None:
            return Whole(y, self.y, MOST, _keyed(y, None, y, k), limits)
        step, less = self.z / float(others.steps[0]), None if of_v.shared is None else -of_v.shared
        z = of_v.kind.whole(others.rounded, of_v.packed, of_v.steps, less, step, self.none, magnitudes=True).numpy()
        keys = np.empty(y.shape, np.uint16)
        levels = _keyed(y, z, keys, k)
        return Whole(keys, self.y * self.z / (1 + self.f), MOST * self.none, levels, limits, z, self.none, self.z)


def _keyed(y: np.ndarray, z: np.ndarray | None, keys: np.ndarray, k: int) -> np.ndarray:
    """(rows,) keys that at least k of a row's are not below, nor many more; keys: their products, where there are z."""
    n_groups = y.shape[1] // GROUP

    def part(first: int, last: int) -> list[np.ndarray]:
        found = []
        for i in range(first, last, ROWS):
            some = slice(i, min(i + ROWS, last))
            if z is not None:
                np.multiply(y[some], z[some], out=keys[some], dtype=np.uint16)
            best = keys[some].reshape(-1, GROUP, n_groups).max(1).astype(np.uint16)
            found.append(np.partition(best, n_groups - k, axis=1)[:, n_groups - k])
        return found

    return np.concatenate([level for levels in threads.over(len(y), ROWS, part) for level in levels])
