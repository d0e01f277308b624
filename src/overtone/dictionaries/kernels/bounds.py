"""What the scores of a block of rows with all latents do not exceed, by products in few bits.

Where scores are boosted, s = u (1 + v), u at most y, v within f of z: for b = y (1 + f + z), s is at most b where b is
not negative, else at most b / (1 + 2 f).

Bounds are compared as integers, which is faster: bf16 numbers above 0 are ordered as their bits are.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from overtone.dictionaries.kernels import threads
from overtone.dictionaries.kernels.rounded import GRAIN, Kind, Rounded
from overtone.dictionaries.selectors.base import Rule

ROWS = 64  # that are worth a thread
GROUP = 16  # latents in a group; large groups make maxima cheap, small ones tell the k-th score better


@dataclass(frozen=True, eq=False)
class Problem:
    """Arguments of `choose.Select`."""

    states: Tensor
    weight: Tensor
    bias: Tensor
    shift: Tensor | None
    rule: Rule
    two_sided: bool

    def of(self, rows: slice | Tensor) -> "Problem":
        """Some rows of it."""
        rule = self.rule
        if rule.boost is not None:
            rule = replace(rule, boost=replace(rule.boost, rows=rule.boost.states[rows], length=None))
        return replace(self, states=self.states[rows], rule=rule)

    def rounded(self, kind: Kind) -> tuple[Rounded, Rounded | None] | None:
        """The weights of both products; None where this kind cannot hold them."""
        of_u, boost = Rounded.of(kind, self.weight, self.states, self.bias, self.shift), self.rule.boost
        of_v = None if boost is None else Rounded.of(kind, boost.weight, boost.states)
        return None if of_u is None or (boost is not None and of_v is None) else (of_u, of_v)


@dataclass(frozen=True, eq=False)
class Limits:
    """From scores to bounds, row by row: (rows,) steps of the bounds, f, by how much y is larger than need be, and than
    u in the mean; rounding: relative, of bounds."""

    steps: Tensor
    f: Tensor
    spare: Tensor
    e: Tensor
    rounding: float

    @classmethod
    def joined(cls, parts: Sequence["Limits"]) -> "Limits":
        """Of the rows of several, one after the other."""
        steps, f, spare, e = (torch.cat([getattr(p, name) for p in parts]) for name in ("steps", "f", "spare", "e"))
        return cls(steps, f, spare, e, parts[0].rounding)

    @property
    def units(self) -> Tensor:
        """(rows,) what a bound of 1 is."""
        return self.steps * (1 + self.f)

    def __call__(self, scores: Tensor) -> Tensor:
        """(rows,) bounds below which are only scores below (rows,) numbers."""
        above = scores > 0
        least = scores / self.units - 1e-30
        below = least * ((1 + self.rounding) * (1 + 2 * self.f))
        return torch.where(above, (least + self.spare) * (1 - self.rounding), below)

    def excess(self, bounds: Tensor) -> Tensor:
        """(rows,) by how much (rows,) bounds exceed their scores, roughly and up to a factor for all rows."""
        return (self.e + bounds.abs() * (self.f / (1 + self.f))).clamp_min_(1e-30)

    def lifted(self, scores: Tensor, z: Tensor, rows: Tensor) -> Tensor:
        """(n,) what scores of some rows are at most once they are boosted; z: as in `Bounds`."""
        f = self.f.index_select(0, rows)
        boosts = torch.addcmul(f, 1 + f, z)
        return torch.maximum(scores, torch.addcmul(scores, scores, boosts, value=1 + self.rounding))


@dataclass(eq=False)
class Bounds:
    """keys: (rows, latents) int16, the bits of b / (1 + f) in steps; z: (rows, latents) bf16, z / (1 + f) in steps of
    `step`, where there are boosts. in_order: whether keys have the order of numbers below 0 too."""

    keys: Tensor
    z: Tensor | None
    limits: Limits
    step: float = 1.0
    in_order: bool = False

    @classmethod
    def of(cls, p: Problem, of_u: Rounded, of_v: Rounded | None) -> "Bounds | None":
        """None where states are not finite."""
        rows, boost = of_u.short(p.states), p.rule.boost
        others = None if boost is None or of_v is None else of_v.short(boost.states, alike=True)
        if rows is None or (boost is not None and others is None):
            return None
        most, spare, e = of_u.at_most(rows, p.two_sided)
        e, rounding = e.expand_as(spare), (2 if p.two_sided else 1) * GRAIN
        if of_v is None or others is None:
            return cls(most.view(torch.int16), None, Limits(rows.steps, torch.zeros_like(spare), spare, e, rounding))
        f, z, step = of_v.wrong(others), of_v.magnitudes(others), 1.0
        if others.alike:  # a pass less
            f = f.amax().expand_as(f)
            step = float(others.steps[0] / (1 + f[0]))
        else:
            z.mul_((others.steps / (1 + f)).bfloat16().unsqueeze(1))
        torch.addcmul(most, most, z, value=step, out=most)
        return cls(most.view(torch.int16), z, Limits(rows.steps, f, spare, e, rounding + 4 * GRAIN), step)

    def level(self, k: int) -> Tensor:
        """(rows,) bounds that at least k of a row's are not below, nor many more."""
        while True:
            best = self.keys.view(len(self.keys), GROUP, -1).amax(1).numpy()
            least = torch.from_numpy(np.partition(best, best.shape[1] - k, axis=1)[:, best.shape[1] - k])
            if self.in_order or int(least.min()) > 0:
                return (_turned(least, 15) if self.in_order else least).view(torch.bfloat16).float()
            self._put_in_order()

    def places(self, least: Tensor) -> Tensor:
        """(n,) positions, in row order, of bounds that are not below (rows,) ones."""
        bits = least.view(torch.int32)
        keys = (_turned(bits, 31) >> 16).short()
        if not self.in_order and int(keys.min()) <= 0:
            self._put_in_order()
        n_latents, all_keys, limits = self.keys.shape[1], self.keys.numpy(), keys.unsqueeze(1).numpy()

        def part(first: int, last: int) -> np.ndarray:
            found = true_places(all_keys[first:last] >= limits[first:last])
            return found + first * n_latents if first else found

        parts = threads.over(len(keys), ROWS, part)
        return torch.from_numpy(parts[0] if len(parts) == 1 else np.concatenate(parts))

    def foretold(self, gap: Tensor, k: int) -> tuple[Tensor, Tensor]:
        """(rows,) floors that lie below levels as far as a () gap says, and the places whose scores may reach them."""
        level = self.level(k)
        floors = (level - gap * self.limits.excess(level)) * self.limits.units
        return floors, self.places(self.limits(floors))

    def above(self, floors: Tensor) -> Tensor:
        """(rows,) floors, or higher ones that these bounds can tell from others."""
        return floors

    def z_at(self, places: Tensor) -> Tensor | None:
        """(n,) z / (1 + f) at some positions."""
        return None if self.z is None else self.z.view(-1).index_select(0, places).float().mul_(self.step)

    def _put_in_order(self) -> None:
        """Give keys of numbers below 0 the order of these."""
        self.keys.copy_(_turned(self.keys, 15))
        self.in_order = True


def true_places(mask: np.ndarray) -> np.ndarray:
    """Positions of the true ones among (rows, latents), of which few are: eight are passed over at a time."""
    eights = mask.reshape(-1).view(np.int64)
    some = np.flatnonzero(eights != 0)
    found = np.flatnonzero(eights[some].view(np.bool_))
    return some[found >> 3] * 8 + (found & 7)


def _turned(bits: Tensor, sign: int) -> Tensor:
    """Bits of numbers as integers of the same order, or back; sign: the position of the sign."""
    return bits ^ ((bits >> sign) & (2**sign - 1))
