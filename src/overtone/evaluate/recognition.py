"""Can single latents recognise behaviours? The best latent per behaviour, chosen on one split, measured on another.

This is RISE's claim that behaviours are recoverable without labels (arXiv 2512.23988, section C), as sparse probing
with one latent. Pass the codes of a dictionary, PCA coordinates or the codes of a random decoder: the same three
readings of a latent compete for all of them, so no basis is favoured.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import numpy as np

from overtone.core.errors import DataError
from overtone.evaluate.intervals import Estimate, Resampling
from overtone.evaluate.separability import auroc_estimate, auroc_table
from overtone.interpret.columns import as_columns, same_rows

Place = TypeVar("Place", bound=Hashable)
READINGS = ("positive", "negative", "size")


@dataclass(frozen=True, eq=False)
class LabelledCodes:
    """Rows of codes (rows, latents) with a label (or None) and a group (problem, document) each."""

    codes: Any
    labels: tuple[str | None, ...]
    groups: tuple[Any, ...]

    def __post_init__(self) -> None:
        object.__setattr__(self, "codes", as_columns(self.codes))
        object.__setattr__(self, "labels", tuple(self.labels))
        object.__setattr__(self, "groups", tuple(self.groups))
        same_rows(self.codes, self.labels)
        same_rows(self.codes, self.groups, "groups")

    def shuffled(self, rng: np.random.Generator) -> LabelledCodes:
        """The same codes with their labels permuted over all rows: the control that must score 0.5."""
        return replace(self, labels=tuple(self.labels[i] for i in rng.permutation(len(self.labels))))


@dataclass(frozen=True)
class Recogniser:
    """The latent that best tells one behaviour from all other labelled steps.

    reading: what is scored, the latent's value ("positive"), minus it ("negative") or its size ("size"); selected:
    AUROC on the split where it was chosen (biased upwards); auroc: on the other split, with an interval over groups;
    n_positive of n rows were the behaviour there.
    """

    behaviour: str
    latent: int
    reading: str
    selected: float
    auroc: Estimate
    n_positive: int
    n: int


def best_latents(
    select: LabelledCodes,
    report: LabelledCodes,
    *,
    rng: np.random.Generator,
    behaviours: Sequence[str] | None = None,
    n_min: int = 10,
    draws: int = 500,
) -> dict[str, Recogniser]:
    """For each behaviour, the latent and reading of highest AUROC on `select`, measured on `report`.

    Rows without a label are left out on both sides. behaviours: default all labels, in sorted order; one with fewer
    than n_min rows, or fewer than n_min other rows, on either side is left out. draws: bootstrap draws.
    Raises DataError if the splits share a group or differ in latents, or if nothing is left.
    """
    found = best_among({None: (select, report)}, rng=rng, behaviours=behaviours, n_min=n_min, draws=draws)
    return {name: recogniser for name, (_, recogniser) in found.items()}


def best_among(
    places: Mapping[Place, tuple[LabelledCodes, LabelledCodes]],
    *,
    rng: np.random.Generator,
    behaviours: Sequence[str] | None = None,
    n_min: int = 10,
    draws: int = 500,
) -> dict[str, tuple[Place, Recogniser]]:
    """As `best_latents`, over the latents of several dictionaries of the same rows: name -> its (select, report) codes.
    Each behaviour gets the dictionary, latent and reading of highest AUROC on `select`."""
    labelled = {place: _checked(select, report) for place, (select, report) in places.items()}
    parts = next(iter(labelled.values()))
    wanted = behaviours or sorted(set(parts[0].labels))  # type: ignore[type-var]
    names = [name for name in wanted if _enough(name, parts, n_min)]
    if not names:
        raise DataError(f"no behaviour has {n_min} steps in both splits. Sample more traces or lower n_min.")
    chosen = {place: _choose(select, names) for place, (select, _) in labelled.items()}
    resampling = Resampling.over(parts[1].groups, rng=rng, draws=draws)
    found = {}
    for name in names:
        place = max(chosen, key=lambda p: chosen[p][name][2])
        found[name] = (place, _measure(name, *chosen[place][name], labelled[place][1], resampling))
    return found


def selected_auroc(select: LabelledCodes, *, n_min: int = 10) -> float:
    """Mean over behaviours of the AUROC of their best latents on the split where these are chosen, in [0, 1]: what a
    choice between dictionaries may look at. Behaviours as in `best_latents`."""
    select = _labelled(select)
    names = [name for name in sorted(set(select.labels)) if _enough(name, (select,), n_min)]  # type: ignore[type-var]
    return float(np.mean([auroc for *_, auroc in _choose(select, names).values()])) if names else 0.0


def mean_auroc(found: dict[str, Recogniser]) -> float:
    """Mean over behaviours of the held-out AUROC, in [0, 1]."""
    return float(np.mean([r.auroc.value for r in found.values()]))


def _checked(select: LabelledCodes, report: LabelledCodes) -> tuple[LabelledCodes, LabelledCodes]:
    if select.codes.shape[1] != report.codes.shape[1]:
        raise DataError(
            f"{select.codes.shape[1]} and {report.codes.shape[1]} latents: use one dictionary for both splits."
        )
    shared = set(select.groups) & set(report.groups)
    if shared:
        raise DataError(
            f"{len(shared)} groups lie in both splits, such as {min(map(str, shared))}. Split by group first."
        )
    return _labelled(select), _labelled(report)


def _labelled(part: LabelledCodes) -> LabelledCodes:
    kept = [i for i, label in enumerate(part.labels) if label is not None]
    pick = part.codes.tocsr()[kept] if kept else part.codes[:0]
    return LabelledCodes(pick, tuple(part.labels[i] for i in kept), tuple(part.groups[i] for i in kept))


def _enough(name: str, parts: Sequence[LabelledCodes], n_min: int) -> bool:
    counts = [sum(label == name for label in p.labels) for p in parts]
    return all(n_min <= n <= len(p.labels) - n_min for n, p in zip(counts, parts, strict=True))


def _choose(select: LabelledCodes, names: Sequence[str]) -> dict[str, tuple[int, str, float]]:
    labels = np.array(select.labels, dtype=object)
    members = np.stack([labels == name for name in names], axis=1)
    values = auroc_table(select.codes, members)
    tables = [values, 1 - values, auroc_table(abs(select.codes), members)]
    chosen = {}
    for k, name in enumerate(names):
        scores = np.stack([t[:, k] for t in tables])
        reading, latent = np.unravel_index(int(scores.argmax()), scores.shape)
        chosen[name] = (int(latent), READINGS[reading], float(scores[reading, latent]))
    return chosen


def _measure(
    name: str, latent: int, reading: str, selected: float, report: LabelledCodes, resampling: Resampling
) -> Recogniser:
    values = report.codes[:, [latent]].toarray()[:, 0]
    scores = {"positive": values, "negative": -values, "size": np.abs(values)}[reading]
    positive = np.array([label == name for label in report.labels])
    estimate = auroc_estimate(scores, positive, report.groups, resampling)
    return Recogniser(name, latent, reading, selected, estimate, int(positive.sum()), len(positive))
