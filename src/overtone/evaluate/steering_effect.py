"""What turning a direction does to generated traces: dose-response of every behaviour, with controls.

Counts (steps of a kind per trace) and shares (of all steps) are both reported, because steering changes lengths. One
resampling of problems serves all doses and controls, so every comparison is paired by problem. Sources: RISE
(arXiv 2512.23988) and the protocol "measuring amplification" of this project's bundled reasoner.

effect(k, dose) = log( R_k(dose) / R_k(baseline) ) in nats, R_k the mean count (or the share) with half a step added to
both totals (see `intervals.log_ratio`): 0 is no effect, log 2 twice as many, antisymmetric between more and fewer.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import log

import numpy as np

from overtone.core.errors import DataError, SettingError
from overtone.evaluate.intervals import Estimate, Resampling, log_ratio, ratio
from overtone.evaluate.outcomes import COUNT, Outcomes

# name -> (numerator, denominator or "" for "per trace"); a trace counts only where both are known
MEASURES = {
    "steps": ("steps", ""),
    "tokens": ("tokens", ""),
    "accuracy": ("correct", ""),
    "finished": ("finished", ""),
    "false_success": ("false_success", ""),
    "arithmetic": ("arithmetic_valid", "arithmetic_total"),
    "legal": ("legal", "steps"),
    "unknown": ("unknown", "steps"),
    "kl": ("kl", ""),
}


@dataclass(frozen=True)
class DoseRow:
    """One dose. By behaviour: counts (steps per trace), shares (of all steps, [0, 1]), effects and share_effects (nats,
    against the baseline; 0 at the baseline). By name of MEASURES: measures, and changes = measure - baseline,
    paired."""

    dose: float
    n_traces: int
    n_problems: int
    counts: dict[str, Estimate]
    shares: dict[str, Estimate]
    effects: dict[str, Estimate]
    share_effects: dict[str, Estimate]
    measures: dict[str, Estimate]
    changes: dict[str, Estimate]


@dataclass(frozen=True)
class DoseTable:
    """All doses, ascending, and per behaviour the Spearman correlation of dose and mean count (or share), in [-1,
    1]."""

    rows: tuple[DoseRow, ...]
    baseline: float
    behaviours: tuple[str, ...]
    monotonicity: dict[str, Estimate]
    share_monotonicity: dict[str, Estimate]

    def at(self, dose: float) -> DoseRow:
        """The row of a dose. Raises DataError if it was not run."""
        for row in self.rows:
            if row.dose == dose:
                return row
        raise DataError(f"dose {dose:g} was not run; doses: {', '.join(f'{r.dose:g}' for r in self.rows)}.")


@dataclass(frozen=True)
class SteeringSummary:
    """One behaviour's answer in a few numbers.

    monotonicity: Spearman over doses of mean counts; lowest, highest: effects (nats) at the extreme doses; change_low,
    change_high: the same as relative changes of the count, exp(effect) - 1; asymmetry: highest + lowest in nats
    (positive: amplifying works better than suppressing); selectivity: |effect on the target| over the largest |effect|
    on another behaviour at `selective_dose`, the smallest |dose| that doubles or halves the target (None if none
    does; infinite if nothing else moved).
    """

    target: str
    monotonicity: Estimate
    lowest: Estimate
    highest: Estimate
    change_low: float
    change_high: float
    asymmetry: float
    selectivity: float | None
    selective_dose: float | None


@dataclass(frozen=True)
class ControlComparison:
    """An effect at one dose beside that of controls at the same dose (random directions of equal norm).

    effect, controls: nats; control: mean size of the controls' effects; ratio: |effect| / control, infinite if the
    controls did nothing; holds: ratio >= min_ratio and the effect's interval excludes 0.
    """

    target: str
    dose: float
    effect: Estimate
    controls: dict[str, Estimate]
    control: float
    ratio: Estimate
    min_ratio: float
    holds: bool


# ------------------------------------------------------------------------------------------------------------ the table
def dose_table(outcomes: Outcomes, *, rng: np.random.Generator, draws: int = 1000, baseline: float = 0.0) -> DoseTable:
    """Every dose's counts, shares, effects and side effects, with bootstrap intervals over problems.

    Raises DataError if the baseline dose was not run.
    """
    outcomes.at(baseline)
    resampling = Resampling.over(outcomes.problem, rng=rng, draws=draws)
    base = _series(outcomes.at(baseline), resampling)
    all_series = {dose: _series(outcomes.at(dose), resampling) for dose in outcomes.doses}
    rows = tuple(_dose_row(d, outcomes.at(d), s, base, resampling) for d, s in all_series.items())

    def monotonicity(group: str) -> dict[str, Estimate]:
        found = {}
        for b in outcomes.behaviours:
            responses = np.stack([s[group, b] for s in all_series.values()])
            found[b] = resampling.estimate(spearman(np.array(outcomes.doses), responses))
        return found

    return DoseTable(rows, baseline, outcomes.behaviours, monotonicity("counts"), monotonicity("shares"))


def _series(part: Outcomes, resampling: Resampling) -> dict[tuple[str, str], np.ndarray]:
    """(group, name) -> series (1 + draws,) of one dose: counts, shares, measures, and the raw totals behind effects."""
    fractions = {("counts", b): (COUNT + b, "") for b in part.behaviours}
    fractions |= {("shares", b): (COUNT + b, "steps") for b in part.behaviours}
    fractions |= {("measures", name): parts for name, parts in MEASURES.items()}
    columns = []
    for over, under in fractions.values():
        top = part.values[over]
        bottom = part.values[under] if under else np.ones_like(top)
        known = ~(np.isnan(top) | np.isnan(bottom))
        columns += [np.where(known, top, 0), np.where(known, bottom, 0)]
    sums = resampling.sums(np.stack(columns, axis=1), part.problem)
    series = {}
    for i, (group, name) in enumerate(fractions):
        over, under = sums[:, 2 * i], sums[:, 2 * i + 1]
        series |= {(group, name): ratio(over, under), (f"{group} of", name): np.stack([over, under])}
    return series


def _dose_row(dose: float, part: Outcomes, series: dict, base: dict, resampling: Resampling) -> DoseRow:
    def estimates(group: str) -> dict[str, Estimate]:
        return {name: resampling.estimate(s) for (g, name), s in series.items() if g == group}

    def effects(group: str) -> dict[str, Estimate]:
        return {b: resampling.estimate(_effect(series, base, group, b)) for b in part.behaviours}

    changes = {name: resampling.estimate(series["measures", name] - base["measures", name]) for name in MEASURES}
    return DoseRow(
        dose, len(part.problem), len(set(part.problem)), estimates("counts"), estimates("shares"),
        effects("counts"), effects("shares"), estimates("measures"), changes,
    )  # fmt: skip


def _effect(series: dict, base: dict, group: str, behaviour: str) -> np.ndarray:
    return log_ratio(*series[f"{group} of", behaviour], *base[f"{group} of", behaviour])


def spearman(doses: np.ndarray, responses: np.ndarray) -> np.ndarray:
    """Spearman rank correlation of doses (n,) with each column of responses (n, columns): (columns,), in [-1, 1].

    0 for a flat response, NaN where a response is NaN. Raises DataError for fewer than two doses.
    """
    from scipy.stats import rankdata

    if len(doses) < 2:
        raise DataError(f"{len(doses)} dose: a dose-response needs at least two. Run more strengths.")
    x, y = rankdata(doses)[:, None], rankdata(responses, axis=0, nan_policy="propagate")
    x, y = x - x.mean(axis=0), y - y.mean(axis=0)
    spread = np.sqrt((x**2).sum(axis=0) * (y**2).sum(axis=0))
    return np.where(spread == 0, 0.0, ratio((x * y).sum(axis=0), np.where(spread == 0, 1.0, spread)))


# ---------------------------------------------------------------------------------------------------------- the summary
def summarise(table: DoseTable, target: str) -> SteeringSummary:
    """What the doses did to one behaviour and, at its selective dose, to the others.

    Raises SettingError if the behaviour was not counted.
    """
    if target not in table.behaviours:
        raise SettingError(f"{target!r} was not counted; behaviours: {', '.join(table.behaviours)}.")
    low, high = (table.rows[i].effects[target] for i in (0, -1))
    selective = selective_row(table, target)
    others = [abs(selective.effects[b].value) for b in table.behaviours if b != target] if selective else []
    largest = max(others, default=0.0)
    selectivity = None
    if selective:
        selectivity = abs(selective.effects[target].value) / largest if largest else float("inf")
    return SteeringSummary(
        target, table.monotonicity[target], low, high, float(np.exp(low.value) - 1), float(np.exp(high.value) - 1),
        high.value + low.value, selectivity, selective.dose if selective else None,
    )  # fmt: skip


def selective_row(table: DoseTable, target: str, *, at_least: float = log(2)) -> DoseRow | None:
    """The row of the smallest |dose - baseline| whose |effect on target| is `at_least` (nats), or None."""
    near_first = sorted(table.rows, key=lambda row: abs(row.dose - table.baseline))
    return next((row for row in near_first if abs(row.effects[target].value) >= at_least), None)


def kept_content(table: DoseTable, dose: float, *, most_points: float = 3.0) -> bool:
    """Whether a dose keeps what is said sound: arithmetic validity falls, and unknown steps rise, by at most
    `most_points` percentage points against the baseline; what is not known counts as kept."""
    changes = table.at(dose).changes
    worse = [-changes["arithmetic"].value, changes["unknown"].value]
    return all(not value > most_points / 100 for value in worse)


def compare_with_controls(
    steered: Outcomes,
    controls: Mapping[str, Outcomes],
    target: str,
    dose: float,
    *,
    rng: np.random.Generator,
    baseline: float = 0.0,
    shares: bool = False,
    min_ratio: float = 4.0,
    draws: int = 1000,
) -> ControlComparison:
    """The target's effect at a dose against that of control directions at the same dose and norm.

    The baseline rows of `steered` serve all arms that have none of their own. shares: compare effects on shares instead
    of counts. Raises DataError if an arm lacks the dose, or there is no control.
    """
    if not controls:
        raise DataError("there is no control to compare with. Run at least one random direction of equal norm.")
    group, arms = "shares" if shares else "counts", {"": steered, **controls}
    resampling = Resampling.over([p for arm in arms.values() for p in arm.problem], rng=rng, draws=draws)
    series = {}
    for name, arm in arms.items():
        own = arm if baseline in arm.doses else steered
        base = _series(own.at(baseline), resampling)
        series[name] = _effect(_series(arm.at(dose), resampling), base, group, target)
    effect, sizes = series.pop(""), [abs(s) for s in series.values()]
    control = np.mean(sizes, axis=0)
    ratios = np.divide(abs(effect), control, out=np.full_like(control, np.inf), where=control > 0)
    found, quotient = resampling.estimate(effect), resampling.estimate(ratios)
    holds = bool(quotient.value >= min_ratio and found.excludes(0))
    beside = {name: resampling.estimate(s) for name, s in series.items()}
    return ControlComparison(target, dose, found, beside, float(control[0]), quotient, min_ratio, holds)
