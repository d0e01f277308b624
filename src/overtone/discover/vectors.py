"""Candidate vectors of each behaviour at each layer, and which of them steers: decided on the `select` split.

All vectors live where they are used: at anchor `next`, the token whose state decides the coming step. The kinds:
`centroid` is RISE's, the unit mean of the atoms specific to the behaviour, from the dictionary of the `next` states;
`matched centroid` takes the atoms that are more active before the behaviour within each kind of preceding step, so
that WHERE a behaviour is possible cannot pass for the decision to show it; `weighted atoms` weighs all telling atoms by
their z-score there, also those that fall silent. Beside them, to compare: `named centroid`, from the dictionary of the
naming anchor; `mean difference`, SEAL's: one behaviour against the rest; and `matched difference`, the same within each
kind of preceding step.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from overtone.core.errors import DataError
from overtone.core.sites import Site
from overtone.directions.atoms import centroid_of_atoms
from overtone.directions.direction import Direction, unit_direction
from overtone.directions.means import matched_mean_difference, mean_difference
from overtone.discover.crew import Crew, Task
from overtone.discover.decompose import Decomposition
from overtone.discover.material import FEWEST, FIT, SELECT, Material, Rows
from overtone.discover.naming import Naming
from overtone.evaluate.outcomes import COUNT
from overtone.interpret.profiles import matched_contrast, profile, specific
from overtone.steering.edits.add import Add
from overtone.steering.steer import Steering
from overtone.steering.strength import Strength
from overtone.steering.when import When

if TYPE_CHECKING:
    from overtone.discover.settings import DiscoverSettings

CENTROID, MATCHED_CENTROID, WEIGHTED = "centroid", "matched centroid", "weighted atoms"
NAMED, DIFFERENCE, MATCHED = "named centroid", "mean difference", "matched difference"
FROM_ATOMS, DENSE = (CENTROID, MATCHED_CENTROID, WEIGHTED), (DIFFERENCE, MATCHED)
KINDS = (*FROM_ATOMS, NAMED, *DENSE)
MOST_ATOMS = 8  # in a matched centroid
LEAST_Z = 3.0


@dataclass(frozen=True, eq=False)
class Candidate:
    """A vector of a behaviour: kind (see the module), behaviour, and the direction, measured over `fit` states."""

    kind: str
    behaviour: str
    direction: Direction

    @property
    def name(self) -> str:
        """behaviour, kind and site in one."""
        return f"{self.behaviour} {self.kind} {self.direction.site}"


def steerable(material: Material, settings: DiscoverSettings) -> tuple[str, ...]:
    """The behaviours to steer: those asked for, or all that the model shows outside the frame of its traces.

    Raises DataError naming what was found if one that was asked for is not shown.
    """
    wanted = settings.causal.behaviours or tuple(b for b in material.behaviours if b not in material.subject.frame)
    unknown = [b for b in wanted if b not in material.behaviours]
    if unknown or not wanted:
        raise DataError(
            f"behaviours {unknown or 'to steer'} are not shown {FEWEST} times; "
            f"the traces show {', '.join(material.behaviours)}."
        )
    return wanted


def boundaries(material: Material) -> When:
    """Step boundaries while generating: every delimiter in the think section, the one that ends the prompt included."""
    return When(
        after=frozenset(material.subject.delimiters), include_prompt_end=True, only_think=material.subject.think
    )


def candidates(material: Material, nexts: Decomposition, naming: Naming, behaviours: Sequence[str]) -> list[Candidate]:
    """All vectors that can be made, for each behaviour and site; one that cannot (no specific latent) is left out."""
    found = []
    for site in material.sites:
        makers = _makers(material, nexts, naming, site)
        for behaviour in behaviours:
            for kind, make in makers.items():
                try:
                    found.append(Candidate(kind, behaviour, make(behaviour)))
                except DataError:  # no latent is specific to the behaviour here, or no stratum holds both sides
                    continue
    return found


def _makers(material: Material, nexts: Decomposition, naming: Naming, site: Site) -> Mapping[str, Any]:
    import torch

    rows = nexts.rows
    picked = rows.index(FIT)
    x, labels, before = rows.x[site][picked], rows.picked(rows.labels, picked), rows.picked(rows.previous, picked)
    model = material.subject.model.fingerprint
    codes = nexts.dictionaries[site].encode(x)
    at_next = profile(codes, labels, names=material.behaviours)

    def centroid(behaviour: str) -> Direction:
        return centroid_of_atoms(
            nexts.dictionaries[site], specific(at_next, behaviour), site, model=model, rows=x, name=CENTROID
        )

    def named(behaviour: str) -> Direction:
        chosen = specific(naming.profiles[site], behaviour)
        return centroid_of_atoms(naming.found.dictionaries[site], chosen, site, model=model, rows=x, name=NAMED)

    def matched_centroid(behaviour: str) -> Direction:
        z = matched_contrast(codes, labels, before, behaviour)
        latents = [int(j) for j in np.argsort(-z)[:MOST_ATOMS] if z[j] >= LEAST_Z]
        return centroid_of_atoms(nexts.dictionaries[site], latents, site, model=model, rows=x, name=MATCHED_CENTROID)

    def weighted(behaviour: str) -> Direction:
        z = torch.from_numpy(matched_contrast(codes, labels, before, behaviour)).float()
        vector = torch.where(z.abs() >= LEAST_Z, z, 0.0) @ nexts.dictionaries[site].atoms().detach()
        return unit_direction(vector, site, model=model, rows=x, name=WEIGHTED, origin={"how": WEIGHTED})

    def is_one(behaviour: str) -> Any:
        return torch.tensor([label == behaviour for label in labels])

    def difference(behaviour: str) -> Direction:
        mask = is_one(behaviour)
        return mean_difference(x[mask], x[~mask], site, model=model, rows=x, name=DIFFERENCE)

    def matched(behaviour: str) -> Direction:
        return matched_mean_difference(x, is_one(behaviour), before, site, model=model, name=MATCHED)

    return {
        CENTROID: centroid,
        MATCHED_CENTROID: matched_centroid,
        WEIGHTED: weighted,
        NAMED: named,
        DIFFERENCE: difference,
        MATCHED: matched,
    }


@dataclass(frozen=True, eq=False)
class Trial:
    """How a candidate did on `select`: steps of its behaviour per trace at -dose, 0 and +dose (in mean norms)."""

    candidate: Candidate
    low: float
    base: float
    high: float
    unknown: float  # share of steps without a name at +dose and -dose, the larger

    @property
    def swing(self) -> float:
        """log( (count at +dose + 0.1) / (count at -dose + 0.1) ): positive if adding amplifies."""
        return float(np.log((self.high + 0.1) / (self.low + 0.1)))

    @property
    def both_ways(self) -> float:
        """The smaller of the two effects, log ratios to the base, with the sign calibrated: above 0 if the vector both
        amplifies and suppresses."""
        low, high = sorted((self.low, self.high)) if self.swing < 0 else (self.low, self.high)
        return float(np.log(min((high + 0.1) / (self.base + 0.1), (self.base + 0.1) / (low + 0.1))))

    def to_dict(self) -> dict[str, Any]:
        """Plain numbers for the report."""
        d = self.candidate.direction
        return {
            "behaviour": self.candidate.behaviour,
            "kind": self.candidate.kind,
            "site": str(d.site),
            "low": self.low,
            "base": self.base,
            "high": self.high,
            "swing": self.swing,
            "unknown": self.unknown,
        }


def add_arm(direction: Direction, dose: float, when: When) -> tuple[Steering, ...]:
    """The steering that adds `dose` mean norms of a direction at step boundaries; nothing for dose 0."""
    return (Steering(direction, Add(Strength(dose, "norm")), when),) if dose else ()


def trials(crew: Crew, material: Material, found: Sequence[Candidate], dose: float, n_prompts: int) -> list[Trial]:
    """Try every candidate at +dose and -dose on a few problems of the `select` split."""
    prompts = _select_prompts(material, n_prompts)
    when, keys = boundaries(material), tuple(range(len(prompts)))
    tasks = [Task("base", prompts, keys)]
    tasks += [
        Task(f"{c.name} {sign:+d}", prompts, keys, add_arm(c.direction, sign * dose, when), sign * dose)
        for c in found
        for sign in (-1, 1)
    ]
    rows = {name: a.outcomes for name, a in crew.all(tasks, "trying vectors").items()}

    def mean(name: str, column: str) -> float:
        return float(np.mean([row[column] for row in rows[name]]))

    def unnamed(name: str) -> float:
        return float(sum(r["unknown"] for r in rows[name]) / max(1, sum(r["steps"] for r in rows[name])))

    return [
        Trial(
            c,
            mean(f"{c.name} -1", COUNT + c.behaviour),
            mean("base", COUNT + c.behaviour),
            mean(f"{c.name} +1", COUNT + c.behaviour),
            max(unnamed(f"{c.name} -1"), unnamed(f"{c.name} +1")),
        )
        for c in found
    ]


def _select_prompts(material: Material, n: int) -> tuple[Any, ...]:
    from overtone.discover.subject import Prompt

    traces = material.of(SELECT)[:n]
    return tuple(Prompt(t.prompt_ids, t.group, {k: v for k, v in t.meta.items() if k != "split"}) for t in traces)


def signed(trial: Trial) -> Candidate:
    """The candidate with its sign set so that adding it amplifies its behaviour (RISE's sign is ambiguous: calibrate
    it)."""
    if trial.swing >= 0:
        return trial.candidate
    return replace(trial.candidate, direction=trial.candidate.direction.negated())


def rows_for_controls(rows: Rows, site: Site) -> Any:
    """The `fit` states at a site: what controls are measured over."""
    return rows.x[site][rows.index(FIT)]
