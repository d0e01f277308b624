"""Dictionaries side by side: several presets on the same rows, several seeds, one table.

What differs between seeds is what the caller lets differ: `sample(seed)` may draw other planted truth, another split by
document, or the same rows again (then only initial values and the order of batches change). Intervals are over seeds.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from typing import TYPE_CHECKING, Any

import numpy as np

from overtone.core.batch import ActivationBatch, Where
from overtone.core.devices import clock_of
from overtone.core.errors import CapabilityError, SettingError
from overtone.core.report import Finding
from overtone.core.sites import Site
from overtone.dictionaries.dictionary import Dictionary
from overtone.dictionaries.preset import Preset
from overtone.evaluate.intervals import Estimate, over_seeds
from overtone.evaluate.reconstruction import reconstruction
from overtone.evaluate.recovery import planted_recovery
from overtone.evaluate.stability import agreement

if TYPE_CHECKING:
    from torch import Tensor

    from overtone.training.schedules import Schedule

FOUND = 0.9  # |cos| from which a planted atom counts as recovered
ERRORS = ("fvu", "dead_share")  # measures that are better where they are lower, whatever a claim says of them
FAIR = 1.05  # ratio of active latents up to which dictionaries are compared


@dataclass(frozen=True, eq=False)
class Sample:
    """What one seed looks at. train, held_out: (rows, width), of different documents; truth: planted atoms (planted,
    width) or None; g: (rows, width) gradients of the training rows, for presets that need them."""

    train: Tensor
    held_out: Tensor
    truth: Tensor | None = None
    g: Tensor | None = None

    @property
    def source(self) -> Tensor | ActivationBatch:
        """What is trained on."""
        if self.g is None:
            return self.train
        import torch

        rows, nothing = torch.arange(len(self.train)), torch.zeros(len(self.train), dtype=torch.int64)
        site = Site("residual", 0)  # a label; nothing is looked up by it
        return ActivationBatch({site: self.train}, Where(rows, nothing, nothing - 1), g={site: self.g})


@dataclass(frozen=True, eq=False)
class Trial:
    """One dictionary of one seed. measures on the held-out rows: fvu, l0, dead_share (see evaluate/reconstruction),
    recovered and mmcs where truth is known (see evaluate/recovery, |cos| > 0.9), what the caller adds, and what the
    training's last record tells of its maintainers; seconds: of its training, as `clock_of` its device has them."""

    name: str
    seed: int
    dictionary: Dictionary
    measures: Mapping[str, float]
    seconds: float = 0.0


@dataclass(frozen=True, eq=False)
class Comparison:
    """All trials, by name in the order given and by seed."""

    trials: tuple[Trial, ...]

    @property
    def names(self) -> tuple[str, ...]:
        """The compared names."""
        return tuple(dict.fromkeys(t.name for t in self.trials))

    def of(self, name: str) -> list[Trial]:
        """The trials of a name, one per seed. Raises SettingError for an unknown name."""
        if name not in self.names:
            raise SettingError(f"nothing was compared under {name!r}; there are {', '.join(self.names)}.")
        return [t for t in self.trials if t.name == name]

    def values(self, name: str, measure: str) -> np.ndarray:
        """(seeds,) values of a measure. Raises SettingError if it was not measured."""
        trials = self.of(name)
        if measure not in trials[0].measures:
            raise SettingError(f"{name} has no {measure!r}; it has {', '.join(trials[0].measures)}.")
        return np.array([t.measures[measure] for t in trials], dtype=np.float64)

    def with_measure(self, measure: str, of: Callable[[Trial], float]) -> Comparison:
        """The same comparison with one more measure of every trial."""
        trials = (replace(t, measures={**t.measures, measure: float(of(t))}) for t in self.trials)
        return Comparison(tuple(trials))

    def with_derived(
        self, name: str, of: str, make: Callable[[Trial, Sample], Dictionary], samples: Mapping[int, Sample]
    ) -> Comparison:
        """The same comparison with a control that is made from each trial of `of`, measured on the same held-out rows
        (the measures of `Trial` only). samples: by seed."""
        found = []
        for trial in self.of(of):
            made = make(trial, samples[trial.seed])
            found.append(Trial(name, trial.seed, made, measured(made, samples[trial.seed])))
        return Comparison((*self.trials, *found))

    def mean(self, name: str, measure: str) -> Estimate:
        """Mean of a measure over seeds, with its interval."""
        return over_seeds(self.values(name, measure))

    def difference(self, first: str, second: str, measure: str) -> Estimate:
        """Mean of first - second, paired by seed, with its interval."""
        return over_seeds(self.values(first, measure) - self.values(second, measure))

    def against(
        self, id: str, claim: str, first: str, second: str, measure: str, *, better: str = "lower", paper: str = "",
        note: str = "", any_l0: bool = False,
    ) -> Finding:  # fmt: skip
        """The finding that `first` is better than `second` in a measure: it holds if the interval of the paired
        difference over seeds lies on the better side of 0. Measured: the mean of `first`; control: that of `second`.
        What unequal numbers of active latents may have brought about is no finding (holds: None), whatever the measure;
        see `bought`. any_l0: how many are active is a part of the claim, and nothing is asked of it."""
        mean, rival = self.mean(first, measure), self.mean(second, measure).value
        gap = self.difference(first, second, measure)
        holds = None if gap.interval is None else gap.high < 0 if better == "lower" else gap.low > 0
        said = f"{first} - {second}: {gap.value:+.4g} [{gap.low:+.4g}, {gap.high:+.4g}]"
        wins = holds == (measure not in ERRORS or better == "lower")  # where a claim says that errors are larger
        if holds is not None and not any_l0 and self.bought(first, second, wins):
            holds, said = None, f"{said}; not at equal L0 ({self.spent(first, second)})"
        return Finding(
            id, claim, mean.value, measure, mean.n, holds, paper, better, mean.interval, rival, second, "seeds",
            "; ".join(filter(None, (said, note))),
        )  # fmt: skip

    def bought(self, first: str, second: str, wins: bool) -> bool:
        """Whether active latents may be why `first` wins or does not: it wins with more than FAIR times those of
        `second` on held-out rows, or loses with fewer than by that factor."""
        ratio = self.mean(first, "l0").value / max(self.mean(second, "l0").value, 1e-12)
        return ratio > FAIR if wins else ratio < 1 / FAIR

    def spent(self, first: str, second: str) -> str:
        """Mean active latents of two, in words."""
        return " against ".join(f"{self.mean(name, 'l0').value:.3g}" for name in (first, second))

    def stability(self, name: str) -> float | None:
        """Mean cosine of one-to-one matched atoms over all pairs of seeds, in [-1, 1], up to sign where codes are
        signed; None with one seed or without atoms. It speaks of stability only where the seeds look at the same kind
        of rows."""
        linear = [t.dictionary for t in self.of(name) if t.dictionary.capabilities.linear_decoder]
        pairs = [
            agreement(a.atoms(), b.atoms(), signed=not a.capabilities.signed_codes).mean
            for a, b in combinations(linear, 2)
        ]
        return float(np.mean(pairs)) if pairs else None

    def table(self) -> list[dict[str, Any]]:
        """One row of plain data per name: the mean of every measure of any of them (None where it has it not), and half
        the width of its interval after "+-"."""
        return [{"name": name, "seeds": len(self.of(name)), **self._row(name)} for name in self.names]

    def _row(self, name: str) -> dict[str, float | None]:
        row: dict[str, float | None] = {}
        for measure in dict.fromkeys(measure for trial in self.trials for measure in trial.measures):
            known = measure in self.of(name)[0].measures
            mean = self.mean(name, measure) if known else Estimate(np.nan, np.nan, np.nan, 0)
            half = (mean.high - mean.low) / 2 if mean.interval else None
            row |= {measure: mean.value if known else None, f"{measure} +-": half}
        return row


def compare(
    presets: Mapping[str, Preset], sample: Callable[[int], Sample], *, seeds: Sequence[int], n_tokens: int,
    batch_rows: int = 512, lr: float | None = None, schedule: Schedule | None = None,
    also: Callable[[Dictionary, Sample], Mapping[str, float]] | None = None,
) -> Comparison:  # fmt: skip
    """Train every preset on each seed's rows (all on the same batches) and measure it on the held-out ones.

    presets: name -> preset; sample: seed -> its rows; n_tokens, batch_rows, lr, schedule: as for
    `training.fit.fit_many`, where a preset that is fitted as a whole gets up to n_tokens rows; also: further measures
    of one dictionary. Raises SettingError if there is nothing to compare, and what `fit_many` raises.
    """
    if not presets or not seeds:
        raise SettingError(f"{len(presets)} presets and {len(seeds)} seeds: give at least one of each.")
    options = {"n_tokens": n_tokens, "batch_rows": batch_rows, "lr": lr, "schedule": schedule, "also": also}
    trials = []
    for seed in seeds:
        rows = sample(seed)
        trials += [trial(name, preset, rows, seed, **options) for name, preset in presets.items()]
    return Comparison(tuple(sorted(trials, key=lambda t: (list(presets).index(t.name), t.seed))))


def trial(
    name: str, preset: Preset, rows: Sample, seed: int, *, n_tokens: int, batch_rows: int = 512,
    lr: float | None = None, schedule: Schedule | None = None,
    also: Callable[[Dictionary, Sample], Mapping[str, float]] | None = None, device: str = "cpu",
) -> Trial:  # fmt: skip
    """One preset trained on one seed's rows, on a device, and measured; the arguments are those of `compare`."""
    from overtone.training.fit import Job, fit_many

    clock = clock_of(device)
    started = clock()
    (one,) = fit_many(
        [Job(preset, lr=lr, name=name)], rows.source, n_tokens=n_tokens, batch_rows=batch_rows, seed=seed,
        schedule=schedule, quiet=True, device=device,
    )  # fmt: skip
    seconds = clock() - started
    told = one.record[-1].told if one.record else {}
    return Trial(name, seed, one.dictionary, measured(one.dictionary, rows, also=also) | dict(told), seconds)


def measured(
    dictionary: Dictionary, rows: Sample, *, also: Callable[[Dictionary, Sample], Mapping[str, float]] | None = None
) -> dict[str, float]:
    """The measures of `Trial` for one dictionary. Raises CapabilityError if it predicts other states than it reads: of
    these the rows say nothing."""
    if dictionary.capabilities.predicts_other_states:
        raise CapabilityError(
            f"{dictionary.kind} predicts other states than it reads, and these rows hold none to compare with. Use "
            "evaluate.reconstruction with the states of the predicted site."
        )
    codes = dictionary.encode(rows.held_out)
    quality = reconstruction(rows.held_out, dictionary.decode(codes, rows.held_out), codes)
    found = {"fvu": quality.fvu, "l0": quality.l0, "dead_share": quality.dead_share}
    if rows.truth is not None and dictionary.capabilities.linear_decoder:
        recovery = planted_recovery(dictionary.atoms(), rows.truth, threshold=FOUND)
        found |= {"recovered": recovery.share, "mmcs": recovery.mmcs}
    return found | dict(also(dictionary, rows) if also else {})
