"""Candidate vectors of each behaviour at each layer.

All vectors live where they are used: at anchor `next`, the token whose state decides the coming step. Made of atoms of
the dictionary of the `next` states: `centroid` is RISE's, the unit mean of the atoms specific to the behaviour;
`matched centroid` takes the atoms that are more active before the behaviour within each kind of preceding step, so
that WHERE a behaviour is possible cannot pass for the decision to show it; `weighted atoms` weighs all telling atoms by
their z-score there, also those that fall silent; `cleared atoms` is the part of these that is orthogonal to the
weighted atoms of every other behaviour; `choice atoms` weighs atoms by their z-score against one behaviour alone, the
one that most often comes in its place. Dense ones, to compare: `mean difference`, SEAL's: one behaviour against the
rest; and `matched difference`, the same within each kind of preceding step.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import TYPE_CHECKING

import numpy as np

from overtone.core.errors import DataError
from overtone.core.sites import Site
from overtone.directions.atoms import centroid_of_atoms
from overtone.directions.direction import Direction, unit_direction
from overtone.directions.means import matched_mean_difference, mean_difference
from overtone.discover.decompose import Decomposition
from overtone.discover.material import FEWEST, FIT, Material
from overtone.interpret.profiles import matched_contrast, profile, specific
from overtone.steering.edits.add import Add
from overtone.steering.steer import Steering
from overtone.steering.strength import Strength
from overtone.steering.when import When

if TYPE_CHECKING:
    from torch import Tensor

    from overtone.discover.settings import DiscoverSettings

CENTROID, MATCHED_CENTROID, WEIGHTED = "centroid", "matched centroid", "weighted atoms"
CLEARED, CHOICE = "cleared atoms", "choice atoms"
DIFFERENCE, MATCHED = "mean difference", "matched difference"
FROM_ATOMS, DENSE = (CENTROID, MATCHED_CENTROID, WEIGHTED, CLEARED, CHOICE), (DIFFERENCE, MATCHED)
KINDS = (*FROM_ATOMS, *DENSE)
MOST_ATOMS = 8  # in a matched centroid
LEAST_Z = 3.0


@dataclass(frozen=True, eq=False)
class Candidate:
    """A vector of a behaviour: kind (see the module), behaviour, the direction, measured over `fit` states, and whether
    it was turned round."""

    kind: str
    behaviour: str
    direction: Direction
    turned: bool = False

    def negated(self) -> Candidate:
        """The opposite vector, under the same name."""
        return replace(self, direction=self.direction.negated(), turned=not self.turned)

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


def steering_sites(material: Material, settings: DiscoverSettings) -> tuple[Site, ...]:
    """The sites that may be steered: the layer that was asked for; else the later half of the layers, where the kind of
    a step is decided."""
    ordered = sorted(material.sites, key=lambda site: site.layer)
    asked = settings.causal.layer
    return tuple(s for s in ordered if s.layer == asked) if asked >= 0 else tuple(ordered[len(ordered) // 2 :])


def candidates(material: Material, nexts: Decomposition, behaviours: Sequence[str]) -> list[Candidate]:
    """All vectors that can be made, for each behaviour and site with a dictionary; one that cannot (no specific latent)
    is left out."""
    found = []
    for site in nexts.dictionaries:
        makers = _Makers(material, nexts, site).by_kind()
        for behaviour in behaviours:
            for kind, make in makers.items():
                try:
                    found.append(Candidate(kind, behaviour, make(behaviour)))
                except DataError:  # no latent is specific to the behaviour here, or no stratum holds both sides
                    continue
    return found


class _Makers:
    """Makes the vectors of one site from the `fit` states there."""

    def __init__(self, material: Material, nexts: Decomposition, site: Site) -> None:
        rows = nexts.rows
        picked = rows.index(FIT)
        self.site, self.dictionary, self.x = site, nexts.dictionaries[site], rows.x[site][picked]
        self.labels, self.before = rows.picked(rows.labels, picked), rows.picked(rows.previous, picked)
        self.model, self.behaviours = material.subject.model.fingerprint, material.behaviours
        self.codes = self.dictionary.encode(self.x)
        self.profile = profile(self.codes, self.labels, names=self.behaviours)
        self._contrast = cache(self._contrasted)  # asked for by several kinds

    def by_kind(self) -> Mapping[str, Callable[[str], Direction]]:
        """kind -> behaviour -> vector; each raises DataError where there is none."""
        return {
            CENTROID: lambda b: self._centroid(specific(self.profile, b), CENTROID),
            MATCHED_CENTROID: self._matched_centroid,
            WEIGHTED: lambda b: self._unit(self._weighted(b), WEIGHTED),
            CLEARED: lambda b: self._unit(self._cleared(b), CLEARED),
            CHOICE: lambda b: self._unit(self._weighted(b, against=self._in_its_place(b)), CHOICE),
            DIFFERENCE: self._difference,
            MATCHED: lambda b: matched_mean_difference(
                self.x, self._is_one(b), self.before, self.site, model=self.model, name=MATCHED
            ),
        }

    def _unit(self, vector: Tensor, name: str) -> Direction:
        if not float(vector.norm()) > 0:
            raise DataError(f"no latent tells where the behaviour comes at {self.site}.")
        return unit_direction(vector, self.site, model=self.model, rows=self.x, name=name, origin={"how": name})

    def _centroid(self, latents: Sequence[int], name: str) -> Direction:
        return centroid_of_atoms(self.dictionary, latents, self.site, model=self.model, rows=self.x, name=name)

    def _matched_centroid(self, behaviour: str) -> Direction:
        z = self._contrast(behaviour)
        return self._centroid([int(j) for j in np.argsort(-z)[:MOST_ATOMS] if z[j] >= LEAST_Z], MATCHED_CENTROID)

    def _contrasted(self, behaviour: str, against: str = "") -> np.ndarray:
        labels = [x if not against or x in (behaviour, against) else None for x in self.labels]
        return matched_contrast(self.codes, labels, self.before, behaviour)

    def _weighted(self, behaviour: str, against: str = "") -> Tensor:
        """Atoms weighed by their matched z-scores; against: compared with this behaviour only."""
        import torch

        z = torch.from_numpy(self._contrast(behaviour, against)).float()
        return torch.where(z.abs() >= LEAST_Z, z, 0.0) @ self.dictionary.atoms().detach().float()

    def _cleared(self, behaviour: str) -> Tensor:
        """The weighted atoms without what they share with those of the other behaviours."""
        import torch

        others = [self._known_weighted(b) for b in self.behaviours if b != behaviour]
        others = [v / v.norm() for v in others if v is not None and float(v.norm()) > 0]
        own = self._weighted(behaviour)
        if not others:
            return own
        basis = torch.linalg.qr(torch.stack(others, 1).double()).Q
        return (own.double() - basis @ (basis.T @ own.double())).float()

    def _known_weighted(self, behaviour: str) -> Tensor | None:
        try:
            return self._weighted(behaviour)
        except DataError:  # it never has a choice beside it
            return None

    def _in_its_place(self, behaviour: str) -> str:
        """The behaviour that most often comes where this one could: the largest sum of n+ n- / (n+ + n-) over kinds of
        the step before. Raises DataError if nothing does."""
        counts = Counter(zip(self.before, self.labels, strict=True))
        found: dict[str, float] = {}
        for (kind, label), n in counts.items():
            own = counts[kind, behaviour]
            if own and label in self.behaviours and label != behaviour:
                found[label] = found.get(label, 0.0) + own * n / (own + n)
        if not found:
            raise DataError(f"nothing ever comes in the place of {behaviour}.")
        return max(found, key=lambda label: found[label])

    def _is_one(self, behaviour: str) -> Tensor:
        import torch

        return torch.tensor([label == behaviour for label in self.labels])

    def _difference(self, behaviour: str) -> Direction:
        mask = self._is_one(behaviour)
        return mean_difference(self.x[mask], self.x[~mask], self.site, model=self.model, rows=self.x, name=DIFFERENCE)


def add_arm(direction: Direction, dose: float, when: When) -> tuple[Steering, ...]:
    """The steering that adds `dose` mean norms of a direction at step boundaries; nothing for dose 0."""
    return (Steering(direction, Add(Strength(dose, "norm")), when),) if dose else ()
