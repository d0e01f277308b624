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
from overtone.dictionaries.kernels.rounded import Counting, Rounded, Short

MOST = 255
HALF = 0.51  # of a step, by which numbers may be rounded down
EXACT = 1e-5  # more than rounding of float32 numbers changes in proportion
ROOM = 1.1, 1.25  # how much larger levels and z may become within a grid
FEW = 0.4  # share of a grid that they may shrink to
ALL = 0.99  # share of the rows whose level is within the grid
TRIES = 16
LEAST = 1e-3  # largest z that is told from 0
SMALLEST, LARGEST = 1e-20, 1e20  # levels whose grids are ordinary numbers
NEAR = 64  # rows whose bounds stay in a second cache


@dataclass(eq=False)
class Seen:
    """What earlier rows showed: their levels in the rows' steps, largest z, and by kinds of few bits how far k-th
    scores lie below levels; see `Limits.excess`."""

    level: float = 1.0
    z: float = 1.0
    gaps: dict[str, Tensor] = field(default_factory=dict)


@dataclass(eq=False)
class Whole:
    """limits: as in `Bounds`; unit: what a key of 1 is of b / (1 + f); most: keys are no smaller if a y was cut off;
    levels: (rows,) keys that at least k of a row's are not below; z: (rows, latents) z in steps plus `none`, where
    there are boosts, and the largest of these; found: places that reach the floors which were foretold, else None;
    keys: (rows, latents), where nothing was foretold."""

    limits: Limits
    unit: float
    most: int
    levels: np.ndarray
    z: np.ndarray | None
    largest: int
    none: int
    step: float
    found: Tensor | None
    keys: np.ndarray | None

    @classmethod
    def of(
        cls, p: Problem, kind: Counting, of_u: Rounded, of_v: Rounded | None, seen: Seen, gap: Tensor | None = None
    ) -> "Whole | None":
        """None where they do not serve: states are not finite, gradients not alike, or k-th scores not above 0. kind:
        of the weights; gap: as `Seen` has it, where floors are to be foretold."""
        rows, boost = of_u.short(p.states), p.rule.boost
        others = None if boost is None or of_v is None else of_v.short(boost.states, alike=True)
        if rows is None or (boost is not None and (others is None or not others.alike)):
            return None
        for _ in range(TRIES):
            found = _Grid.of(of_v, others, seen).bounds(kind, of_u, rows, of_v, others, p.rule.k, gap)
            if not SMALLEST < found.unit * float(found.levels.min()) < LARGEST:
                return None
            if found._fits(seen):
                return found
        return None

    def _fits(self, seen: Seen) -> bool:
        """Whether the grid was right; else what was seen is put right."""
        level = float(np.sort(self.levels)[int(ALL * (len(self.levels) - 1))]) * self.unit
        is_cut = level >= 0.999 * ROOM[0] * seen.level
        fits = not is_cut and level >= FEW * seen.level
        if not fits:
            seen.level = level * (1.5 if is_cut else 1.0)
        if self.z is None:
            return fits
        z = (self.largest - self.none) * self.step
        if self.largest == MOST:
            seen.z *= 2
            return False
        if z < FEW * seen.z and seen.z > LEAST:
            seen.z = max(z, seen.z / 8)
            return False
        return fits

    def level(self, k: int) -> Tensor:
        """As in `Bounds`."""
        return torch.from_numpy(self.levels.astype(np.float32)) * self.unit

    def places(self, least: Tensor) -> Tensor:
        """As in `Bounds`, where nothing was foretold."""
        assert self.keys is not None
        limits = (least.nan_to_num(0.0) * ((1 - EXACT) / self.unit)).ceil().clamp(0, self.most).numpy()
        return torch.from_numpy(true_places(self.keys >= limits.astype(self.keys.dtype)[:, None]))

    def foretold(self, gap: Tensor, k: int) -> tuple[Tensor, Tensor]:
        """As in `Bounds`."""
        level = self.level(k)
        assert self.found is not None
        return self.above((level - gap * self.limits.excess(level)) * self.limits.units), self.found

    def above(self, floors: Tensor) -> Tensor:
        """As in `Bounds`."""
        return torch.maximum(floors, self.unit * self.limits.units)

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

    def bounds(
        self, kind: Counting, of_u: Rounded, rows: Short, of_v: Rounded | None, others: Short | None, k: int,
        gap: Tensor | None,
    ) -> Whole:  # fmt: skip
        """Those of a block of rows; arguments as for `Whole.of`."""
        added, spare, e = of_u.added(rows)
        y = kind.whole(rows.rounded, of_u.packed, of_u.steps, added + HALF * self.y, self.y).numpy()
        e = (e + HALF * self.y).expand_as(spare)
        limits, z, unit, most = Limits(rows.steps, torch.full_like(spare, self.f), spare, e, EXACT), None, self.y, MOST
        if of_v is not None and others is not None:
            step, less = self.z / float(others.steps[0]), None if of_v.shared is None else -of_v.shared
            z = kind.whole(others.rounded, of_v.packed, of_v.steps, less, step, self.none, magnitudes=True).numpy()
            unit, most = self.y * self.z / (1 + self.f), MOST * self.none
        foretold = None if gap is None else _line(limits, gap, unit)
        levels, largest, found, keys = _keyed(y, z, k, foretold, most)
        return Whole(limits, unit, most, levels, z, largest, self.none, self.z, found, keys)


def _line(limits: Limits, gap: Tensor, unit: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """By rows: key limits of foretold floors are a level's key times the first plus the second, and no less than the
    third; see `Limits` and `Whole.foretold`."""
    slope, scale = 1 - gap * limits.f / (1 + limits.f), (1 - EXACT) ** 2 / unit
    lines = slope * (1 - EXACT) ** 2, (limits.spare - gap * limits.e) * scale, (limits.spare + unit) * scale
    return lines[0].numpy(), lines[1].numpy(), lines[2].numpy()


def _keyed(
    y: np.ndarray, z: np.ndarray | None, k: int, lines: tuple[np.ndarray, np.ndarray, np.ndarray] | None, most: int
) -> tuple[np.ndarray, int, Tensor | None, np.ndarray | None]:
    """Levels, the largest z, places and keys of `Whole`; the latter y or their products, where there are z."""
    (n_rows, n_latents), n_groups = y.shape, y.shape[1] // GROUP
    keys = y if z is None else np.empty(y.shape if lines is None else (1, 1), np.uint16)

    def part(first: int, last: int) -> list[tuple[np.ndarray, int, np.ndarray | None]]:
        found, near = [], None if z is None or lines is None else np.empty((NEAR, n_latents), np.uint16)
        for i in range(first, last, NEAR):
            some = slice(i, min(i + NEAR, last))
            key = keys[some] if near is None else near[: some.stop - i]
            if z is not None:
                np.multiply(y[some], z[some], out=key, dtype=np.uint16)
            best = key.reshape(-1, GROUP, n_groups).max(1).astype(np.uint16)
            level, places = np.partition(best, n_groups - k, axis=1)[:, n_groups - k], None
            if lines is not None:
                slope, shift, least = (line[some] for line in lines)
                limits = np.minimum(np.ceil(np.maximum(level * slope + shift, least)), most).astype(key.dtype)
                places = true_places(key >= limits[:, None]) + i * n_latents
            found.append((level, 0 if z is None else int(z[some].max()), places))
        return found

    parts = [one for some in threads.over(n_rows, ROWS, part) for one in some]
    levels, largest = np.concatenate([level for level, *_ in parts]), max(largest for _, largest, _ in parts)
    if lines is None:
        return levels, largest, None, keys
    return levels, largest, torch.from_numpy(np.concatenate([found for *_, found in parts if found is not None])), None
