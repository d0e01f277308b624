"""Products of states with weights in few bits, and what the true ones do not exceed.

Coordinates of states are first multiplied by powers of two, and those of weights divided, so that one is about as large
in both and extreme ones do not take all digits; an offset of latents is one more coordinate, 1 in states. Each row is
then divided by a step of its own, T, and rounded, R. With T' and R' of a latent
    |<T,T'> - <R,R'>| <= |T - R| |R'| + |T| |T' - R'| + rounding of sums.
In wide vectors that is far too much for int8, since what rounding takes away hardly ever lies along the other vector.
So R = Q - noise, Q = T + noise, rounded, and R' = Q' - noise' alike. Whatever the data, T - R and T' - R' are then
uniform and independent from coordinate to coordinate (Schuchman 1964; Gray and Stockham 1993), and (Hoeffding 1963)
    P(<T,T'> - <R,R'> > h sqrt(V)) <= exp(-h^2 / 2),        V = (|R'|^2 + |T|^2) / 12.
<R,R'> is <Q,Q'> less <noise,R'>, which is a number for each latent, and less <Q,noise'>, which is one for each row and
makes, rounded, one more coordinate of it; what that takes away is known. Where the coordinate costs too much R' is Q',
T' - R' is one of two numbers a step apart, and V = |R'|^2 / 12 + |T|^2 / 4.
A bound of nine deviations leaves out a place of the choice once in 10^17. See `choose.c` for the compiled kernel's.
"""

import math
from dataclasses import dataclass, replace
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

BLOCK = 256  # rows; more of them leave the cache
GRAIN = 1.01 * 2.0**-8  # largest relative error of what is rounded to bf16
SAMPLED = 256  # rows that stand for all
FILLED = 1 / 8  # share of zeros that rows may have more
ALIKE = 2.0  # times as large as others steps may be where one serves all
ONE_MORE = 1.02  # times as many coordinates that noise of the weights may cost
WIDE = 5.0  # deviations within which products with noise nearly always lie
SMALLEST, LARGEST = 1e-30, 1e30  # steps between which products are neither lost nor infinite


class Kind(Protocol):
    """A kind of few bits. dtype: of its numbers; widest: coordinates that a row may have; even: products of rows of a
    multiple of so many are fastest."""

    name: str
    dtype: torch.dtype
    widest: int
    even: int

    def is_fast(self) -> bool:
        """Whether there are instructions for it, and operators of torch that use them."""
        ...

    def dithers(self, width: int) -> "tuple[Dither, Dither] | None":
        """What states and weights are rounded with, drawn anew; None where that would be no better."""
        ...

    def steps(self, largest: Tensor) -> Tensor:
        """Steps for rows whose largest numbers are so large."""
        ...

    def nearest(self, numbers: Tensor) -> Tensor:
        """Float32 numbers in steps, rounded to what this kind has, still in float32; they may be written over."""
        ...

    def packed(self, rounded: Tensor, steps: Tensor) -> Tensor:
        """Rounded weights, (latents, width) in (latents,) steps, as `products` wants them."""
        ...

    def products(
        self, rounded: Tensor, packed: Tensor, steps: Tensor, added: Tensor | None, magnitudes: bool = False
    ) -> Tensor:
        """(rows, latents) bf16 products of rounded rows with weights in (latents,) steps, plus (latents,) numbers that
        may be rounded up; or the magnitudes of all that."""
        ...


@runtime_checkable
class Counting(Kind, Protocol):
    """A kind whose products can be had in bytes."""

    def whole(
        self, rounded: Tensor, packed: Tensor, steps: Tensor, added: Tensor | None, step: float, zero: int = 0,
        magnitudes: bool = False,
    ) -> Tensor:  # fmt: skip
        """(rows, latents) uint8: the same in whole steps, the nearest ones, plus `zero`; 0 and 255 stand for all that
        is beyond."""
        ...


@dataclass(frozen=True, eq=False)
class Dither:
    """Noise of rounding. offset: (width,) is added to numbers beforehand, in steps; lost: what that takes from a row
    weighs no more than a length of so many steps in any direction that does not depend on the noise; longest: steps
    that a row is long at most, or its steps are made larger."""

    offset: Tensor
    lost: float
    longest: float = math.inf


@dataclass(frozen=True, eq=False)
class Short:
    """Rows in few bits: rounded; (rows,) steps and, in these, lengths beforehand and of what rounding takes away.
    alike: whether steps are all the same; left: (rows,) what is missing of products with the weights' noise."""

    rounded: Tensor
    steps: Tensor
    length: Tensor
    lost: Tensor
    alike: bool = False
    left: Tensor | None = None

    @classmethod
    def of(
        cls, kind: Kind, numbers: Tensor, column: Tensor | None, dither: Dither | None, rounded: Tensor,
        alike: bool = False,
    ) -> tuple["Short", Tensor, Tensor | None]:  # fmt: skip
        """Of (rows, width) float32 numbers and a (rows,) column more, put into `rounded`; and the rounded ones in
        float32. alike: with one step for all rows, if that makes none of them much coarser."""
        room = numbers.abs()
        largest = room.amax(1)
        if column is not None:
            largest = torch.maximum(largest, column.abs())
        steps = kind.steps(largest).clamp_min(SMALLEST)
        numbers = torch.mul(numbers, (1 / steps).unsqueeze(1), out=room)
        last = None if column is None else column / steps
        length = _lengths(numbers) if last is None else torch.hypot(_lengths(numbers), last)
        if dither is None:
            nearest, end = kind.nearest(numbers.clone()), None if last is None else kind.nearest(last.clone())
            lost = _lengths(numbers.sub_(nearest))
            lost = lost if last is None or end is None else torch.hypot(lost, last - end)
            return cls(_filled(rounded, nearest, end), steps, length, lost), nearest, end
        if dither.longest < math.inf:
            larger = steps / (dither.longest / length).clamp_max_(1)
            if alike:
                least, most = larger.aminmax()
                alike = bool(most <= ALIKE * least)
                larger = most.expand_as(steps) if alike else larger
            factors = steps / larger
            steps, length, numbers = larger, length * factors, numbers.mul_(factors.unsqueeze(1))
            last = None if last is None else last * factors
        width = numbers.shape[1]
        nearest = kind.nearest(numbers.add_(dither.offset[:width]))
        end = None if last is None else kind.nearest(last + dither.offset[width])
        lost = torch.full_like(steps, dither.lost)
        return cls(_filled(rounded, nearest, end), steps, length, lost, alike), nearest, end


@dataclass(frozen=True, eq=False)
class Rounded:
    """Weights in few bits. by_lost, by_length: (latents,) what is missed for each unit of length that rounding takes
    from a row, and of the row's own; summing: (latents,) the same of sums; coarse: (latents,) rounding of an offset, in
    true units; dither: of the states, of which products have `shared` (latents,) too much; noise: of the weights,
    and what their coordinate for it is; factors: (width,) of the
    states' coordinates; one: a coordinate more of the states, where weights have an offset."""

    kind: Kind
    packed: Tensor
    steps: Tensor
    by_lost: Tensor
    by_length: Tensor
    summing: Tensor
    coarse: Tensor
    dither: Dither | None
    noise: tuple[Tensor, int] | None
    shared: Tensor | None
    factors: Tensor | None
    one: float | None

    @classmethod
    def of(
        cls, kind: Kind, weight: Tensor, states: Tensor, bias: Tensor | None = None, shift: Tensor | None = None
    ) -> "Rounded | None":
        """For products of (rows, width) states with (latents, width) weights, plus a bias less a shift. None where
        numbers are too many or not finite."""
        offset = bias if bias is None or shift is None else bias - shift
        offset = None if offset is None or not bool(offset.any()) else offset
        width = weight.shape[1] + (offset is not None)
        factors, last = _parted(balance(states, weight, offset), weight.shape[1])
        divided = None if factors is None else 1 / factors
        of_states, of_weights = kind.dithers(width) or (None, None)
        if of_states is not None:  # what products miss for the longest row of a block counts for all of them
            few = _scaled(states[:: max(1, len(states) // SAMPLED)], factors)
            largest, one = few.abs().amax(1), last if offset is not None else 0.0
            usual = (_lengths(few).square() + one**2).sqrt() / kind.steps(largest.clamp_min(one))
            of_states = replace(of_states, longest=float(usual.nanmedian().nan_to_num(math.inf, math.inf)))
        noise = None
        if of_weights is not None and of_states is not None and _even(width + 1, kind) <= ONE_MORE * _even(width, kind):
            noise = _coordinate(of_weights, of_states)
            of_weights = replace(of_weights, lost=of_weights.lost / 3**0.5)
        parts, shared, rounded = [], [], _room(len(weight), width + (noise is not None), kind)
        for i in range(0, len(weight), BLOCK):
            column = None if offset is None else offset[i : i + BLOCK] / last
            rows, some = _scaled(weight[i : i + BLOCK], divided), rounded[i : i + BLOCK]
            part, nearest, end = Short.of(kind, rows, column, of_weights, some)
            parts.append(part)
            if of_states is not None:
                along = _along(nearest, end, of_states.offset)
                if noise is not None:
                    some[:, width], along = noise[1], along - of_states.offset @ noise[0]
                shared.append(along.mul_(part.steps))
        steps, length, lost = (
            torch.cat([getattr(part, name) for part in parts]) for name in ("steps", "length", "lost")
        )
        if width > kind.widest or not bool((steps <= LARGEST).all()):
            return None
        coarse = torch.zeros(len(weight)) if bias is None or shift is None else (bias.abs() + shift.abs()) * 2.0**-22
        packed = kind.packed(rounded, steps)
        whole = 1.005 * steps * (length + (lost if of_weights is None else width**0.5))  # no less than after rounding
        summing = 2.0 * (width + 4) * 2.0**-24 * whole  # here, and again in float32
        return cls(
            kind, packed, steps, whole, 1.005 * steps * lost, summing, coarse, of_states, noise,
            torch.cat(shared) if shared else None, factors, None if offset is None else last,
        )  # fmt: skip

    def short(self, states: Tensor, alike: bool = False) -> Short | None:
        """(rows, width) states for products with these weights; None where they are not finite. alike: as in
        `Short.of`."""
        column = None if self.one is None else states.new_full((len(states),), self.one)
        width = states.shape[1] + (self.one is not None)
        room = _room(len(states), width + (self.noise is not None), self.kind)
        found, nearest, end = Short.of(self.kind, _scaled(states, self.factors), column, self.dither, room, alike)
        if self.noise is not None:
            offset, size = self.noise
            along = _along(nearest, end, offset)
            told = (along / -size).round_().clamp_(-127, 127)
            room[:, width] = told
            found = replace(found, left=along.add_(told, alpha=size).abs_())
        return found if bool((found.steps <= LARGEST).all()) else None

    def at_most(self, rows: Short, two_sided: bool) -> tuple[Tensor, Tensor, Tensor]:
        """(rows, latents) bf16, in the rows' steps, times 1 + GRAIN no less than the true products or, if two-sided and
        times 1 + 2 GRAIN, than their magnitudes; (rows,) how much less would do, since all rows are treated as the
        worst one is; and () how much it is in the mean."""
        wrong, spare = self._wrong(rows)
        if not two_sided:
            added = wrong if self.shared is None else wrong - self.shared
            return self.kind.products(rows.rounded, self.packed, self.steps, added), spare, wrong.mean()
        return self.magnitudes(rows).add_((1.01 * wrong).bfloat16()), spare, wrong.mean()

    def added(self, rows: Short) -> tuple[Tensor, Tensor, Tensor]:
        """(latents,) what makes the rounded products no less than the true ones, in the rows' steps; the others as for
        `at_most`."""
        wrong, spare = self._wrong(rows)
        return wrong if self.shared is None else wrong - self.shared, spare, wrong.mean()

    def _wrong(self, rows: Short) -> tuple[Tensor, Tensor]:
        """(latents,) by how much products may be too small, and (rows,) how much less would do."""
        lost, length = rows.lost.amax(), rows.length.amax()
        missed = self._missed(lost * self.by_lost, length * self.by_length)
        wrong = missed + length * self.summing + self.coarse / rows.steps.amin()
        if rows.left is not None:
            wrong = wrong.add_(self.steps * rows.left.amax())
        most, step = lost * self.by_lost.amax(), self.by_length.amin()
        spare = self._missed(most, length * step) - self._missed(most, rows.length * step)
        return wrong, spare

    def magnitudes(self, rows: Short) -> Tensor:
        """(rows, latents) bf16 magnitudes of the rounded products, in the rows' steps."""
        less = None if self.shared is None else -self.shared
        return self.kind.products(rows.rounded, self.packed, self.steps, less, magnitudes=True)

    def wrong(self, rows: Short) -> Tensor:
        """(rows,) by how much magnitudes may be wrong beside GRAIN of them, in true units."""
        missed = self._missed(rows.lost * self.by_lost.amax(), rows.length * self.by_length.amax())
        left = 0.0 if rows.left is None else rows.left * self.steps.amax()
        return rows.steps * (missed + rows.length * self.summing.amax() + left)

    def _missed(self, of_rows: Tensor, of_weights: Tensor) -> Tensor:
        """What products miss in all, of what they miss because rows and because weights were rounded, which is
        independent where it is noise."""
        return of_rows + of_weights if self.dither is None else torch.hypot(of_rows, of_weights)


def _room(n: int, width: int, kind: Kind) -> Tensor:
    """For n rows as numbers of a kind, of a multiple of the width that it likes, if few numbers are missing."""
    return torch.empty(n, _even(width, kind), dtype=kind.dtype)


def _even(width: int, kind: Kind) -> int:
    even = -(-width // kind.even) * kind.even
    return even if even - width <= FILLED * width else width


def _filled(room: Tensor, rows: Tensor, column: Tensor | None) -> Tensor:
    """Room with rows, a column more, if there is one, and zeros."""
    width = rows.shape[1]
    room[:, :width] = rows
    if column is not None:
        room[:, width] = column
    room[:, width + (column is not None) :] = 0
    return room


def _along(rows: Tensor, column: Tensor | None, offset: Tensor) -> Tensor:
    """(n,) products of rows, with a column more, if there is one, with an offset."""
    found = rows @ offset[: rows.shape[1]]
    return found if column is None else found.add_(column, alpha=float(offset[-1]))


def _coordinate(of_weights: Dither, of_states: Dither) -> tuple[Tensor, int]:
    """What `Rounded.noise` is: products of states with the noise are hardly ever more than 127 times the number."""
    usual = of_states.longest / 12**0.5
    return of_weights.offset, math.ceil(min(127.0, max(1.0, WIDE * usual / 127)))


def _lengths(rows: Tensor) -> Tensor:
    return torch.linalg.vector_norm(rows, dim=1)


def _scaled(rows: Tensor, factors: Tensor | None) -> Tensor:
    return rows if factors is None else rows * factors


def _parted(factors: Tensor | None, width: int) -> tuple[Tensor | None, float]:
    """Factors of the coordinates, None where they are all 1, and of one more, if there is one."""
    if factors is None:
        return None, 1.0
    first, last = factors[:width], factors[width:]
    return (first if bool((first != 1).any()) else None), float(last[0]) if len(last) else 1.0


def balance(states: Tensor, weight: Tensor, offset: Tensor | None) -> Tensor | None:
    """(width,) powers of two that bring coordinates of states and weights to the same sizes, up to one for all; None
    where they are all alike. Whatever they are, the choice is the same."""
    of_states = states[:: max(1, len(states) // SAMPLED)].square().mean(0)
    step = max(1, len(weight) // SAMPLED)
    of_weight = weight[::step].square().mean(0)
    if offset is not None:
        of_states = torch.cat([of_states, torch.ones(1)])
        of_weight = torch.cat([of_weight, offset.square().mean(0, keepdim=True)])
    sizes = (of_weight / of_states).log2()
    usual = sizes[sizes.isfinite()]
    powers = (
        ((sizes - usual.median()) / 4).round() if len(usual) else torch.zeros_like(sizes)
    )  # fourth root: both alike
    powers = torch.where(powers.isfinite(), powers, 0.0).clamp(-20, 20)
    return powers.exp2() if bool(powers.any()) else None
