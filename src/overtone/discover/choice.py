"""Which vector steers a behaviour, and how strongly: decided on the `select` split by forecasts, without sampling.

Every candidate is tried at one strength up and down; the best of each behaviour then at every set of doses. A vector
counts at a set of doses if its behaviour rises at every dose, the outer steps still add something (no curve is measured
where it is saturated), and strange first tokens do not spread. Its margin is the smaller of its two effects at the
extremes, less its standard error, in units of what a claim will need there: a change of 30 %, or four times what random
directions of equal norm do. The smallest doses whose effects leave room for chance are taken, and there the vector with
the largest margin; if no effects do, the largest margin of all.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from overtone.core.progress import track
from overtone.core.seeds import torch_generator
from overtone.core.sites import Site
from overtone.directions.controls import random_like
from overtone.discover.vectors import DENSE, FROM_ATOMS, Candidate, add_arm

if TYPE_CHECKING:
    from overtone.discover.forecast import Forecast, Foretold
    from overtone.discover.settings import DiscoverSettings
    from overtone.steering.when import When

LARGEST = (0.2, 0.3, 0.4, 0.5)  # extreme doses that are considered, in mean norms; half of each is given as well
FIRST_DOSE = 0.3  # at which all candidates are compared
FINALISTS = 3  # candidates of a behaviour that are tried at every dose
STRANGE = 0.0125  # most that strange first tokens may spread: texts lose about twice as much, and may lose 3 points
LAST_STEP = 0.12  # least share of the effect at an extreme that its outer half must add
ROOM = 0.4  # nats up and down (x1.5 and x0.67) that leave room for what samples of a few hundred traces are off by
N_RANDOM = 8
NEEDED, RATIO = float(np.log(1.3)), 4.0  # what a claim asks at the extremes: nats, and times the random effect


@dataclass(frozen=True, eq=False)
class Trial:
    """A candidate, its sign calibrated so that adding amplifies, as it is foretold at one set of doses.

    doses: ascending, without 0; steps, effects: dose -> foretold steps of the behaviour per trace, and their log ratio
    to the unsteered ones, 0 included; errors: dose -> standard error of the effect; random: mean size of the effect of
    random directions at the extremes, in nats; strange: by how much the chance of strange first tokens grows at most.
    """

    candidate: Candidate
    doses: tuple[float, ...]
    steps: Mapping[float, float]
    effects: Mapping[float, float]
    errors: Mapping[float, float]
    random: float
    strange: float

    @property
    def least(self) -> float:
        """The smaller of the effects at both ends, in nats; below 0 if one goes the wrong way."""
        return float(min(self.effects[self.doses[-1]], -self.effects[self.doses[0]]))

    @property
    def margin(self) -> float:
        """The smaller effect, as far as it is sure, over what is needed there."""
        low, high = self.doses[0], self.doses[-1]
        sure = min(self.effects[high] - self.errors[high], -self.effects[low] - self.errors[low])
        return float(sure / max(NEEDED, RATIO * self.random))

    @property
    def is_sound(self) -> bool:
        """Rising at every dose, not saturated at the ends, and in words that could stand there."""
        curve = [self.effects[d] for d in sorted(self.effects)]
        rises = all(a < b for a, b in zip(curve, curve[1:], strict=False))
        ends = [(curve[-1], curve[-1] - curve[-2]), (-curve[0], curve[1] - curve[0])]
        return rises and all(step >= LAST_STEP * whole for whole, step in ends) and self.strange <= STRANGE

    def to_dict(self) -> dict[str, Any]:
        """Plain numbers for the report: foretold steps per trace at the extremes and without steering."""
        d, low, high = self.candidate.direction, self.steps[self.doses[0]], self.steps[self.doses[-1]]
        return {
            "behaviour": self.candidate.behaviour,
            "kind": self.candidate.kind,
            "site": str(d.site),
            "dose": self.doses[-1],
            "low": low,
            "base": self.steps[0.0],
            "high": high,
            "swing": self.effects[self.doses[-1]] - self.effects[self.doses[0]],
            "unknown": self.strange,
            "random": self.random,
            "margin": self.margin,
        }


@dataclass(frozen=True, eq=False)
class Choice:
    """What steers a behaviour: the vector, its sign calibrated; its doses in mean norms, ascending, without 0; and the
    best dense vector at its site (None: there is none)."""

    steered: Candidate
    doses: tuple[float, ...]
    rival: Candidate | None

    @property
    def site(self) -> Site:
        """Where the vector lives."""
        return self.steered.direction.site

    @property
    def extremes(self) -> tuple[float, float]:
        """The smallest and the largest dose."""
        return self.doses[0], self.doses[-1]

    def to_dict(self) -> dict[str, Any]:
        """Names, signs (whether the candidate was turned round) and doses, as plain data."""
        named = {"steered": self.steered, "rival": self.rival}
        return {"doses": list(self.doses), **{k: None if c is None else [c.name, c.turned] for k, c in named.items()}}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any], found: Sequence[Candidate]) -> Choice:
        """The choice among the same candidates again."""
        by_name = {c.name: c for c in found}
        steered, rival = (
            None if of is None else (by_name[of[0]].negated() if of[1] else by_name[of[0]])
            for of in (data["steered"], data["rival"])
        )
        assert steered is not None
        return cls(steered, tuple(data["doses"]), rival)


def most_wanted(behaviours: Sequence[str]) -> tuple[str, ...]:
    """Reflection and backtracking where they are shown (the paper's), else the first two: these get every control."""
    return tuple(sorted(behaviours, key=lambda b: b not in ("reflection", "backtracking"))[:2])


def dose_sets(settings: DiscoverSettings) -> list[tuple[float, ...]]:
    """The sets of doses that compete: the one that settings give, or one for every strength in LARGEST."""
    given = settings.causal.doses
    return [tuple(sorted(given))] if given else [(-d, -d / 2, d / 2, d) for d in LARGEST]


class Chooser:
    """Forecasts of candidates and of random directions, each made once. when: the step boundaries."""

    def __init__(self, forecast: Forecast, when: When, settings: DiscoverSettings) -> None:
        self.forecast, self.when, self.settings = forecast, when, settings
        self._random: dict[tuple[Site, float, str], float] = {}
        self._made: dict[tuple[str, float], Foretold] = {}  # by name and dose of the candidate as it was made

    def choices(self, found: Sequence[Candidate], behaviours: Sequence[str]) -> tuple[dict[str, Choice], list[Trial]]:
        """The choice of every behaviour that has a vector of atoms, those of `most_wanted` first, and all trials, for
        the report. The others are steered where and as strongly as one of these two, so that they share their random
        controls."""
        dose = min(FIRST_DOSE, max(max(doses) for doses in dose_sets(self.settings)))
        first = [self.trial(self.signed(c, dose), (-dose, dose)) for c in track(found, "foretelling vectors")]
        chosen: dict[str, Choice] = {}
        trials: list[Trial] = []
        for behaviour in sorted(behaviours, key=lambda b: b not in most_wanted(behaviours)):
            own = sorted((t for t in first if t.candidate.behaviour == behaviour), key=_rank, reverse=True)
            places = {(c.site, c.doses) for c in list(chosen.values())[:2]} if len(chosen) >= 2 else None
            tried = self._finals([t.candidate for t in own if t.candidate.kind in FROM_ATOMS], places)
            trials += own + [t for t in tried if t.doses != (-dose, dose)]
            if tried:
                best = pick(tried)
                site = best.candidate.direction.site
                dense = (t.candidate for t in own if t.candidate.kind in DENSE and t.candidate.direction.site == site)
                chosen[behaviour] = Choice(best.candidate, best.doses, next(dense, None))
        return chosen, trials

    def _finals(self, ranked: Sequence[Candidate], places: set[tuple[Site, tuple[float, ...]]] | None) -> list[Trial]:
        """The best candidates at every set of doses; places: only there, so strongly."""
        if places is not None:
            sites = {site for site, _ in places}
            ranked = [c for c in ranked if c.direction.site in sites]
        return [
            self.trial(c, doses)
            for c in ranked[:FINALISTS]
            for doses in dose_sets(self.settings)
            if places is None or (c.direction.site, doses) in places
        ]

    def trial(self, candidate: Candidate, doses: tuple[float, ...]) -> Trial:
        """A candidate at some doses."""
        b = candidate.behaviour
        told = {dose: self._told(candidate, dose) for dose in doses} | {
            0.0: self.forecast.plain(candidate.direction.site)
        }
        random = float(np.mean([self._random_effect(candidate, abs(dose)) for dose in (doses[0], doses[-1])]))
        steps, effects, errors = (
            {d: getattr(f, of)[b] for d, f in told.items()} for of in ("steps", "effects", "errors")
        )
        return Trial(candidate, doses, steps, effects, errors, random, max(f.strange for f in told.values()))

    def signed(self, candidate: Candidate, dose: float) -> Candidate:
        """The candidate with its sign set so that adding amplifies (RISE's sign is ambiguous: calibrate it)."""
        up, down = (self._told(candidate, d).effects[candidate.behaviour] for d in (dose, -dose))
        return candidate if up >= down else candidate.negated()

    def _told(self, candidate: Candidate, dose: float) -> Foretold:
        key = (candidate.name, -dose if candidate.turned else dose)
        if key not in self._made:
            self._made[key] = self.forecast.under(add_arm(candidate.direction, dose, self.when))
        return self._made[key]

    def _random_effect(self, like: Candidate, dose: float) -> float:
        """Mean size of the effect of random directions at the candidate's site, in nats."""
        site, behaviours = like.direction.site, self.forecast.behaviours
        if (site, dose, like.behaviour) not in self._random:
            told = []
            for i in range(N_RANDOM):
                generator = torch_generator(self.settings.seed, "random forecast", site, i)
                told.append(self.forecast.under(add_arm(random_like(like.direction, generator), dose, self.when)))
            for b in behaviours:
                self._random[site, dose, b] = float(np.mean([abs(f.effects[b]) for f in told]))
        return self._random[site, dose, like.behaviour]


def pick(trials: Sequence[Trial]) -> Trial:
    """The trial to use, of the sound ones (of all if none is sound): among those whose effects have ROOM, one with the
    smallest doses, since what an edit does besides grows with them; of these, or if none has ROOM, the one with the
    largest margin."""
    sound = [t for t in trials if t.is_sound] or list(trials)
    roomy = [t for t in sound if t.least >= ROOM and t.margin >= 1]
    smallest = min((t.doses[-1] for t in roomy), default=0.0)
    return max([t for t in roomy if t.doses[-1] == smallest] or sound, key=lambda t: t.margin)


def _rank(trial: Trial) -> tuple[bool, float]:
    return trial.strange <= STRANGE, trial.margin
