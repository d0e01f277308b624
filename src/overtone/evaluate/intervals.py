"""Uncertainty: the bootstrap over groups (problems, documents) and Wilson's interval for shares.

Traces of one problem resemble each other, so problems are what is drawn again, never single rows. One `Resampling` is
made once and used for every arm of a comparison: that is what pairs them. Its first row is the data as they are, so the
point value and the draws of a statistic come out of one formula, as a *series* of shape (1 + draws,).

Sources: Efron and Tibshirani 1993 (percentile interval, chapter 13); Wilson 1927.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import isfinite
from typing import Any

import numpy as np

from overtone.core.errors import DataError, SettingError, ShapeError

LEVEL = 0.95


@dataclass(frozen=True)
class Estimate:
    """A number and its interval (95 % unless said otherwise), in the number's own unit; n counts what was resampled.

    low and high are NaN where no interval could be computed.
    """

    value: float
    low: float
    high: float
    n: int

    @property
    def interval(self) -> tuple[float, float] | None:
        """(low, high), or None where it could not be computed."""
        return (self.low, self.high) if isfinite(self.low) and isfinite(self.high) else None

    def excludes(self, value: float) -> bool:
        """True if the interval is known and `value` lies outside it."""
        return self.low > value or self.high < value


@dataclass(frozen=True, eq=False)
class Resampling:
    """How often each group is drawn: weights (1 + draws, groups); row 0 is all ones, each other row sums to the number
    of groups. names: the groups, sorted."""

    names: tuple[Any, ...]
    weights: np.ndarray

    @classmethod
    def over(cls, groups: Sequence[Any], *, rng: np.random.Generator, draws: int = 2000) -> Resampling:
        """Resample the distinct values of `groups` with replacement. Raises DataError if there are none, SettingError
        for fewer than 10 draws."""
        names = tuple(sorted(set(groups)))
        if not names:
            raise DataError("nothing to resample: there are no groups. Give at least one row.")
        if draws < 10:
            raise SettingError(f"draws={draws}; an interval needs at least 10, better 1000.")
        drawn = rng.multinomial(len(names), np.full(len(names), 1 / len(names)), size=draws)
        return cls(names, np.concatenate([np.ones((1, len(names))), drawn]))

    def positions(self, groups: Sequence[Any]) -> np.ndarray:
        """Index into `names` of every row's group, (rows,). Raises DataError for a group that was not resampled."""
        place = {name: i for i, name in enumerate(self.names)}
        try:
            return np.array([place[g] for g in groups], dtype=np.int64)
        except KeyError as error:
            raise DataError(
                f"group {error} is not among the {len(self.names)} resampled. Resample all groups."
            ) from None

    def sums(self, values: np.ndarray, groups: Sequence[Any]) -> np.ndarray:
        """Sum of `values` (rows, columns) over the rows of the drawn groups: (1 + draws, columns) in float64."""
        values = np.asarray(values, dtype=np.float64)
        if values.ndim != 2 or len(values) != len(groups):
            raise ShapeError(f"values must be ({len(groups)}, columns), got {values.shape}.")
        per_group = np.zeros((len(self.names), values.shape[1]))
        np.add.at(per_group, self.positions(groups), values)
        return self.weights @ per_group

    def row_weights(self, groups: Sequence[Any]) -> np.ndarray:
        """How often each row is drawn: (1 + draws, rows)."""
        return self.weights[:, self.positions(groups)]

    def estimate(self, series: np.ndarray) -> Estimate:
        """Point value series[0] and the percentile interval of series[1:]; draws that are NaN are left out."""
        series = np.asarray(series, dtype=np.float64)
        draws = series[1:][~np.isnan(series[1:])]
        if np.isnan(series[0]) or len(draws) < 0.5 * (len(series) - 1) or len(draws) < 10:
            return Estimate(float(series[0]), float("nan"), float("nan"), len(self.names))
        low, high = np.quantile(draws, [(1 - LEVEL) / 2, (1 + LEVEL) / 2], method="closest_observation")
        return Estimate(float(series[0]), float(low), float(high), len(self.names))


def ratio(numerator: np.ndarray, denominator: np.ndarray) -> np.ndarray:
    """Element-wise quotient, NaN where the denominator is 0."""
    numerator, denominator = np.asarray(numerator, np.float64), np.asarray(denominator, np.float64)
    return np.divide(numerator, denominator, out=np.full_like(numerator, np.nan), where=denominator != 0)


def log_ratio(
    events: np.ndarray, exposure: np.ndarray, base_events: np.ndarray, base_exposure: np.ndarray
) -> np.ndarray:
    """log( ((events + 1/2) / exposure) / ((base_events + 1/2) / base_exposure) ), element-wise, in nats.

    events: numbers of things counted; exposure: over how many traces (or steps). Half an event on both sides keeps the
    result finite when nothing was counted, and draws it towards 0 (a cautious number) when counts are small. NaN where
    an exposure is 0.
    """
    rate, base = ratio(np.asarray(events) + 0.5, exposure), ratio(np.asarray(base_events) + 0.5, base_exposure)
    return np.log(rate) - np.log(base)


def bootstrap_mean(
    values: np.ndarray, groups: Sequence[Any], *, rng: np.random.Generator, draws: int = 2000
) -> Estimate:
    """Mean of values (rows,) with a bootstrap interval over groups, in the values' unit.

    Raises DataError if there are no rows, ShapeError if values and groups differ in length.
    """
    values = np.asarray(values, dtype=np.float64)
    resampling = Resampling.over(groups, rng=rng, draws=draws)
    sums = resampling.sums(np.stack([values, np.ones_like(values)], axis=1), groups)
    return resampling.estimate(ratio(sums[:, 0], sums[:, 1]))


def paired_difference(
    a: tuple[np.ndarray, Sequence[Any]], b: tuple[np.ndarray, Sequence[Any]], resampling: Resampling
) -> Estimate:
    """mean(a) - mean(b), each given as (values (rows,), groups); one draw of groups serves both sides, so what a group
    does to both of them cancels. Unit: that of the values."""

    def mean(side: tuple[np.ndarray, Sequence[Any]]) -> np.ndarray:
        values = np.asarray(side[0], dtype=np.float64)
        sums = resampling.sums(np.stack([values, np.ones_like(values)], axis=1), side[1])
        return ratio(sums[:, 0], sums[:, 1])

    return resampling.estimate(mean(a) - mean(b))


def over_seeds(values: Sequence[float] | np.ndarray) -> Estimate:
    """Mean of one value per seed with Student's t interval, in the values' unit; low and high are NaN for one seed.

    Seeds are few, and a percentile bootstrap over five of them is far too narrow (it cannot leave their range); this
    interval is exact for Gaussian values and wide when there is little to go by. Raises DataError if there is none or
    one is not finite.
    """
    from scipy.stats import t

    found = np.asarray(values, dtype=np.float64)
    if not len(found) or not np.isfinite(found).all():
        raise DataError(f"one finite value per seed is needed, got {found.tolist()}. Run every seed.")
    if len(found) == 1:
        return Estimate(float(found[0]), float("nan"), float("nan"), 1)
    half = float(t.ppf((1 + LEVEL) / 2, len(found) - 1)) * found.std(ddof=1) / np.sqrt(len(found))
    return Estimate(float(found.mean()), float(found.mean() - half), float(found.mean() + half), len(found))


def wilson(successes: int, n: int, *, level: float = LEVEL) -> Estimate:
    """Share of successes among n independent trials with Wilson's score interval, all in [0, 1].

    For grouped trials use `bootstrap_mean`: this interval is too narrow for them. Raises DataError unless
    0 <= successes <= n and n > 0.
    """
    from scipy.stats import norm

    if not (0 <= successes <= n and n > 0):
        raise DataError(f"{successes} successes of {n}: both must be counts, with 0 <= successes <= n and n > 0.")
    z = float(norm.ppf((1 + level) / 2))
    p = successes / n
    middle = (p + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * np.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    return Estimate(p, max(0.0, float(middle - half)), min(1.0, float(middle + half)), n)
