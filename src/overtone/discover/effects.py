"""Findings of the causal part: what turning a vector up and down did, beside its controls."""

from __future__ import annotations

import numpy as np

from overtone.core.report import Finding
from overtone.discover.causality import BIAS, RISE, RIVAL, SHUFFLED, STEERED, Causality, Series, generator_for
from overtone.discover.settings import DiscoverSettings
from overtone.evaluate.outcomes import Outcomes
from overtone.evaluate.steering_effect import (
    DoseTable,
    compare_with_controls,
    dose_table,
    kept_content,
    summarise,
)

LARGE = 0.3  # relative change of a count at an extreme dose
RATIO = 4.0  # effect over that of random directions
DRAWS = 1000
PAPER_DOSES = "reflection steps on AIME25 at five strengths: 58.6, 73.6, 90.5, 131.0, 166.9"


class Tables:
    """Dose tables of every series, made once: bootstraps over problems, paired with the unsteered answers."""

    def __init__(self, causality: Causality, settings: DiscoverSettings) -> None:
        self.causality, self.settings, self._made = causality, settings, {}

    def of(self, series: Series) -> DoseTable:
        """The dose table of a series, baseline included."""
        key = (series.role, series.name, series.behaviour, *sorted(series.arms))
        if key not in self._made:
            rng = generator_for(self.settings, *key)
            self._made[key] = dose_table(series.outcomes(self.causality.baseline), rng=rng, draws=DRAWS)
        return self._made[key]

    def controls(self, series: Series, dose: float) -> dict[str, Outcomes]:
        """The random directions at the site of a series that ran a dose."""
        return {s.name: s.outcomes() for s in self.causality.random_beside(series) if dose in s.arms}


def causality(causal: Causality, tables: Tables) -> list[Finding]:
    """Dose-response of every steered behaviour with its controls."""
    found: list[Finding] = []
    for series in causal.of(STEERED):
        found += _dose_response(series, tables)
        found += [f for f in (_content(series, tables), _off_target(series, tables)) if f is not None]
        for role in (RISE, BIAS, RIVAL, SHUFFLED):
            found += [_beside(other, role, tables) for other in causal.of(role, series.behaviour)]
    if any(s.behaviour == "reflection" for s in causal.of(STEERED)):
        found += _accuracy(causal.of(STEERED, "reflection")[0], tables)
    return found


def without_vector(behaviour: str) -> Finding:
    """What is said of a behaviour that could not be steered."""
    return Finding(
        f"c.{behaviour}.monotone",
        f"{behaviour} steps rise with the strength of their vector",
        None,
        "Spearman",
        0,
        None,
        note="no latent is specific to this behaviour at the layers that may be steered: sample more or longer traces, "
        "or use a larger dictionary (boundary.expansion)",
    )


def _dose_response(series: Series, tables: Tables) -> list[Finding]:
    b, table = series.behaviour, tables.of(series)
    summary, site = summarise(table, b), series.direction.site if series.direction else ""
    counts = ", ".join(f"{row.counts[b].value:.2f}" for row in table.rows)
    monotone = Finding(
        f"c.{b}.monotone",
        f"{b} steps rise with the strength of their vector (Spearman 1 over {len(table.rows)} doses)",
        summary.monotonicity.value,
        "Spearman",
        table.rows[0].n_traces,
        summary.monotonicity.value >= 1 - 1e-9,
        PAPER_DOSES if b == "reflection" else "",
        "higher",
        summary.monotonicity.interval,
        None,
        "",
        "traces per dose",
        f"{series.name} at {site}; steps per trace by dose: {counts}",
    )
    ends = [(min(series.arms), "suppress", -1), (max(series.arms), "amplify", 1)]
    return [monotone, *(_effect(series, tables, dose, word, sign) for dose, word, sign in ends)]


def _effect(series: Series, tables: Tables, dose: float, word: str, sign: int) -> Finding:
    b = series.behaviour
    outcomes = series.outcomes(tables.causality.baseline)
    rng = generator_for(tables.settings, "controls", b, dose)
    compared = compare_with_controls(
        outcomes, tables.controls(series, dose), b, dose, rng=rng, min_ratio=RATIO, draws=DRAWS
    )
    change = float(np.exp(compared.effect.value) - 1)
    holds = bool(compared.holds and sign * change >= LARGE)
    interval = compared.effect.interval
    return Finding(
        f"c.{b}.{word}",
        f"its vector changes {b} steps by 30 % or more at dose {dose:+g}, at least {RATIO:g} times as much "
        "as random directions",
        float(np.exp(compared.effect.value)),
        "ratio of counts",
        len(outcomes.at(dose).problem),
        holds,
        "x1.84 and x0.65 (reflection, AIME25)" if b == "reflection" else "",
        "higher" if sign > 0 else "lower",
        None if interval is None else (float(np.exp(interval[0])), float(np.exp(interval[1]))),
        float(np.exp(sign * compared.control)),
        f"mean size of {len(compared.controls)} random directions of equal norm",
        "traces",
        f"effect {compared.effect.value:+.3f} nats, {compared.ratio.value:.1f} times the random ones' "
        f"({', '.join(f'{e.value:+.3f}' for e in compared.controls.values())})",
    )


def _content(series: Series, tables: Tables) -> Finding | None:
    table, dose = tables.of(series), max(series.arms)
    change = table.at(dose).changes["arithmetic"]
    if not np.isfinite(change.value):
        return None
    low = table.at(min(series.arms)).changes["arithmetic"].value
    return Finding(
        f"c.{series.behaviour}.content",
        "at the extreme doses arithmetic and wording stay sound (validity falls and unreadable steps rise by at "
        "most 3 points)",
        float(min(change.value, low)),
        "change of validity",
        table.at(dose).n_traces,
        kept_content(table, dose) and kept_content(table, min(series.arms)),
        "",
        "higher",
        change.interval,
        None,
        "",
        "traces",
        f"unreadable steps {table.at(dose).changes['unknown'].value:+.3f}",
    )


def _off_target(series: Series, tables: Tables) -> Finding | None:
    summary = summarise(tables.of(series), series.behaviour)
    if summary.selectivity is None:
        return None
    row = tables.of(series).at(summary.selective_dose or 0.0)
    others = ", ".join(f"{b} {e.value:+.2f}" for b, e in row.effects.items() if b != series.behaviour)
    return Finding(
        f"c.{series.behaviour}.selective",
        "the effect on the behaviour exceeds that on every other one, at the smallest dose that doubles or halves it",
        summary.selectivity,
        "ratio of log effects",
        row.n_traces,
        summary.selectivity > 1,
        "reflection and backtracking regions overlap",
        "higher",
        None,
        1.0,
        "no selectivity",
        "traces",
        f"dose {row.dose:+g}; other effects in nats: {others}",
    )


_BESIDE = {
    RISE: ("scale", "RISE's own operator h - alpha v (v.h): the steps change monotonically with alpha"),
    BIAS: ("bias", "the logit bias W_U v at the same places does less than the vector"),
    RIVAL: ("rival", "the supervised mean difference does no more than the discovered vector"),
    SHUFFLED: ("shuffled", "a vector from shuffled labels does less than a quarter of it"),
}


def _beside(series: Series, role: str, tables: Tables) -> Finding:
    b, table = series.behaviour, tables.of(series)
    word, claim = _BESIDE[role]
    swing = table.rows[-1].effects[b].value - table.rows[0].effects[b].value
    own = tables.of(tables.causality.of(STEERED, b)[0])
    steered = own.rows[-1].effects[b].value - own.rows[0].effects[b].value
    if role == RISE:
        rho = table.monotonicity[b].value
        holds, unit, measured = abs(rho) >= 1 - 1e-9, "Spearman", rho
    else:
        holds, unit, measured = (
            abs(swing) < (0.25 if role == SHUFFLED else 1.0) * abs(steered),
            "nats between the extremes",
            swing,
        )
    counts = ", ".join(f"{row.dose:+g}: {row.counts[b].value:.2f}" for row in table.rows)
    return Finding(
        f"c.{b}.{word}",
        claim,
        float(measured),
        unit,
        table.rows[-1].n_traces,
        bool(holds),
        "",
        "",
        None,
        float(steered),
        "the vector's own swing in nats",
        "traces",
        f"{series.name}; steps per trace by dose: {counts}",
    )


def _accuracy(series: Series, tables: Tables) -> list[Finding]:
    """Slips are planted and only checking cures them, so the sign of this effect is known beforehand."""
    table = tables.of(series)
    found = []
    for dose, word, sign in ((max(series.arms), "amplify", 1), (min(series.arms), "suppress", -1)):
        change = table.at(dose).changes["accuracy"]
        if not np.isfinite(change.value):
            continue
        found.append(
            Finding(
                f"c.accuracy.{word}",
                f"{'more' if sign > 0 else 'less'} reflection {'raises' if sign > 0 else 'lowers'} the "
                "share of correct answers",
                change.value,
                "change of accuracy",
                table.at(dose).n_traces,
                bool(sign * change.value > 0 and change.excludes(0)),
                "",
                "higher" if sign > 0 else "lower",
                change.interval,
                0.0,
                "unsteered",
                "traces",
                f"dose {dose:+g}; tokens per trace {table.at(dose).changes['tokens'].value:+.1f}",
            )
        )
    return found
