"""Causality: what the chosen vectors do at step boundaries while the model answers held-out problems, beside controls.

Every arm answers the same problems with the same random numbers. Strengths are multiples of the mean state norm, so
that all
vectors and all random directions change a state by the same amount at equal dose.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

from overtone.core.seeds import numpy_generator, torch_generator
from overtone.directions.controls import random_like
from overtone.directions.direction import Direction, unit_direction
from overtone.discover.crew import Crew, Task
from overtone.discover.material import FIT, TEST, Material, Rows
from overtone.discover.vectors import add_arm, boundaries
from overtone.evaluate.outcomes import Outcomes
from overtone.steering.bias import bias_of
from overtone.steering.edits.scale import Scale
from overtone.steering.steer import Steering

if TYPE_CHECKING:
    from overtone.discover.choice import Choice
    from overtone.discover.run import Run
    from overtone.discover.settings import DiscoverSettings
    from overtone.discover.subject import Prompt

ALPHAS = (-1.5, -1.0, 1.0, 1.5)  # RISE's; 0 is the unsteered arm
SHOWN = 24  # traces per arm that are kept with their text
SECONDARY_SHARE = 1 / 5  # of the problems, for arms that only accompany

STEERED, RIVAL, SHUFFLED, BIAS, RISE, RANDOM = "steered", "rival", "shuffled", "bias", "rise", "random"
CONFIDENT, CONFIDENT_CONTROL = "confidence", "random beside confidence"


@dataclass(frozen=True)
class Kept:
    """What is kept of one arm: outcome rows in the order of the problems, and the responses to the first few."""

    dose: float
    outcomes: list[dict[str, Any]]
    responses: list[list[int]]


@dataclass(frozen=True, eq=False)
class Series:
    """One vector at several doses. role: what it is for (STEERED ... RANDOM); arms: dose -> what came of it."""

    role: str
    name: str
    behaviour: str
    direction: Direction | None
    arms: Mapping[float, Kept]

    def outcomes(self, baseline: Kept | None = None) -> Outcomes:
        """The rows of all doses, with those of the baseline for the same problems if given."""
        rows = [row for kept in self.arms.values() for row in kept.outcomes]
        if baseline is not None:
            problems = {row["problem"] for row in rows}
            rows = [row for row in baseline.outcomes if row["problem"] in problems] + rows
        return Outcomes.from_rows(rows)


@dataclass(frozen=True, eq=False)
class Causality:
    """All series on the held-out problems, and the unsteered answers to the same."""

    prompts: tuple[Prompt, ...]
    baseline: Kept
    series: tuple[Series, ...]

    def of(self, role: str, behaviour: str = "") -> list[Series]:
        """The series of a role, of one behaviour if named."""
        return [s for s in self.series if s.role == role and (not behaviour or s.behaviour == behaviour)]

    def random_beside(self, series: Series) -> list[Series]:
        """The random directions that ran at the site of a series and at its doses."""
        beside = (s for s in self.of(RANDOM) if _site(s) == _site(series))
        shared = [(s, {d: kept for d, kept in s.arms.items() if d in series.arms}) for s in beside]
        return [replace(s, arms=arms) for s, arms in shared if arms]


def _site(series: Series) -> Any:
    return series.direction.site if series.direction is not None else None


def held_out_prompts(material: Material) -> tuple[Prompt, ...]:
    """The prompts of the `test` split, as the unsteered traces answered them."""
    from overtone.discover.subject import Prompt

    return tuple(
        Prompt(
            t.prompt_ids,
            t.group,
            {k: v for k, v in t.meta.items() if k not in ("split", "finished", "n_edited", "row_key")},
        )
        for t in material.of(TEST)
    )


def unsteered(material: Material) -> Kept:
    """The `test` split as the arm of dose 0: it was generated with the same random numbers."""
    at = [i for i, t in enumerate(material.traces) if t.meta["split"] == TEST]
    rows = [dict(material.outcomes[i]) for i in at]
    return Kept(0.0, rows, [list(material.traces[i].response_ids) for i in at[:SHOWN]])


class Experiment:
    """Builds the arms of every series, answers those that are not there yet, and keeps each arm as a part of the
    run."""

    def __init__(self, run: Run, crew: Crew, material: Material, rows: Rows, settings: DiscoverSettings) -> None:
        self.run, self.crew, self.material, self.rows, self.settings = run, crew, material, rows, settings
        self.prompts, self.when = held_out_prompts(material), boundaries(material)
        self._planned: list[tuple[str, str, str, Direction | None, dict[float, tuple[Any, ...]], int]] = []

    def plan(
        self,
        role: str,
        name: str,
        behaviour: str,
        direction: Direction | None,
        arms: dict[float, Any],
        share: float = 1.0,
    ) -> None:
        """A series to be run on a share of the problems."""
        self._planned.append((role, name, behaviour, direction, arms, max(4, round(share * len(self.prompts)))))

    def add(
        self, role: str, name: str, behaviour: str, d: Direction, doses: Sequence[float], share: float = 1.0
    ) -> None:
        """A series that adds a direction in mean norms."""
        self.plan(role, name, behaviour, d, {dose: add_arm(d, dose, self.when) for dose in doses}, share)

    def plan_behaviour(self, behaviour: str, choice: Choice, *, full: bool) -> None:
        """What is asked of one behaviour: its vector at all its doses; with full also, at the extremes, its rival, a
        vector from shuffled labels and the logit bias, and RISE's own operator; without, on a share of the problems."""
        d, steered, rival = choice.steered.direction, choice.steered, choice.rival
        self.add(STEERED, steered.kind, behaviour, d, choice.doses, 1.0 if full else SECONDARY_SHARE)
        if not full:
            return
        if rival is not None:
            self.add(RIVAL, rival.kind, behaviour, rival.direction, choice.extremes, SECONDARY_SHARE)
        self.add(SHUFFLED, "shuffled labels", behaviour, self._shuffled(d, behaviour), choice.extremes, SECONDARY_SHARE)
        biases = {dose: (self._bias(d, dose),) for dose in choice.extremes}
        self.plan(BIAS, "logit bias", behaviour, d, biases, SECONDARY_SHARE)
        scaled = {alpha: (Steering(d, Scale(1 - alpha), self.when),) for alpha in ALPHAS}
        self.plan(RISE, "scale (RISE's alpha)", behaviour, d, scaled, SECONDARY_SHARE)

    def plan_random(self, choices: Sequence[Choice], n: int = 0) -> None:
        """Random directions of equal norm at the sites of some choices and at the extremes of their doses.

        n: how many per site (0: as many as the settings ask for)."""
        like = {choice.site: choice.steered.direction for choice in choices}
        for site, direction in like.items():
            doses = sorted({dose for choice in choices if choice.site == site for dose in choice.extremes})
            for i in range(n or self.settings.causal.n_random):
                generator = torch_generator(self.settings.seed, "random", site, i)
                d = random_like(direction, generator, name=f"random {i + 1}")
                self.add(RANDOM, f"{d.name} at {site}", "", d, doses)

    def plan_confidence(self, direction: Direction, dose: float) -> None:
        """The confidence vector, and a random direction of equal norm beside it, on a share of the problems."""
        random = random_like(direction, torch_generator(self.settings.seed, "random", "confidence"))
        for role, d in ((CONFIDENT, direction), (CONFIDENT_CONTROL, random)):
            self.add(role, role, "confidence vector", d, (dose,), SECONDARY_SHARE)

    def _shuffled(self, like: Direction, behaviour: str) -> Direction:
        """A mean difference for labels permuted over the `fit` steps, at the place of a direction."""
        import torch

        picked = self.rows.index(FIT)
        x, labels = self.rows.x[like.site][picked], self.rows.picked(self.rows.labels, picked)
        mask = torch.tensor([label == behaviour for label in labels])
        mask = mask[torch.randperm(len(mask), generator=torch_generator(self.settings.seed, "shuffled", behaviour))]
        vector = x[mask].double().mean(0) - x[~mask].double().mean(0)
        return unit_direction(vector, like.site, model=like.model, rows=x, name="shuffled labels")

    def _bias(self, d: Direction, dose: float):
        last = max(self.rows.x, key=lambda site: site.layer)
        states = self.rows.x[last][self.rows.index(FIT)]
        strength = dose * float(states.norm(dim=1).mean())
        return bias_of(self.material.subject.model, d, strength, final_rows=states[:512], when=self.when)

    def results(self, label: str = "steering") -> Causality:
        """Answer everything planned (arms already answered are read) and return it with the unsteered arm."""
        paths, tasks, asked = {}, [], {}
        for role, name, behaviour, _, arms, n in self._planned:
            for dose, arm in arms.items():
                key = f"{role} {name} {behaviour} {dose:g}"
                paths[key] = self.run.path("arm", key, self._identity(arm, n)).with_suffix(".json")
                if not paths[key].exists():
                    prompts, keys = asked.setdefault(n, (self.prompts[:n], tuple(range(n))))
                    tasks.append(Task(key, prompts, keys, arm, dose))
        self._answer(sorted(tasks, key=lambda t: -len(t.prompts)), paths, label)
        series = tuple(
            Series(
                role, name, behaviour, d, {dose: _read(paths[f"{role} {name} {behaviour} {dose:g}"]) for dose in arms}
            )
            for role, name, behaviour, d, arms, _ in self._planned
        )
        return Causality(self.prompts, unsteered(self.material), series)

    def _answer(self, tasks: Sequence[Task], paths: Mapping[str, Any], label: str) -> None:
        from overtone.core.artifacts import write_json

        started = time.monotonic()
        for found in self.crew.each(tasks, label):
            dose = next(t.dose for t in tasks if t.name == found.name)
            responses = [list(t.response_ids) for t in found.traces[:SHOWN]]
            write_json(paths[found.name], {"dose": dose, "outcomes": found.outcomes, "responses": responses})
        if tasks:
            self.run.spent(label, time.monotonic() - started)
        else:
            self.run.reused.append(label)

    def _identity(self, arm: Sequence[Any], n: int) -> list[Any]:
        """Everything that the outcomes of an arm on the first n prompts depend on."""
        vectors = [getattr(one, "direction", one).vector.double().sum().item() for one in arm]
        settings = [
            self.settings.seed,
            self.settings.sampling.to_dict(),
            self.settings.labels,
            self.material.subject.model.fingerprint,
        ]
        return [settings, [asdict(p) for p in self.prompts[:n]], [one.describe() for one in arm], vectors]


def _read(path: Any) -> Kept:
    import json

    return Kept(**json.loads(path.read_text()))


def generator_for(settings: DiscoverSettings, *names: object) -> Any:
    """The numpy generator of one purpose of the causal part."""
    return numpy_generator(settings.seed, "causality", *names)
