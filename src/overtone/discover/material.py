"""The material of a discovery: sampled traces in splits, named steps, and the state of every step at every layer.

Splits never share a problem. `fit` trains dictionaries and vectors; `select` chooses latents, layer and sign; `test`
holds
problems that were set aside from the start (and the bundled model has never seen), answered without steering;
`wording`,
where the subject can write it, holds sentences that the model was never trained on.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch

from overtone.activations.positions import Picks, StepAnchor
from overtone.core.batch import Where
from overtone.core.errors import DataError
from overtone.core.sites import Site
from overtone.data.traces import (
    ReasoningTrace,
    StepSpan,
    load_traces,
    save_traces,
    split_groups,
    traces_fingerprint,
)
from overtone.discover.crew import Answers, Crew, in_chunks
from overtone.discover.settings import DiscoverSettings
from overtone.discover.subject import BundledSubject, Prompt, Subject

if TYPE_CHECKING:
    from torch import Tensor

    from overtone.discover.run import Run

FIT, SELECT, TEST, WORDING = "fit", "select", "test", "wording"
FIT_SHARE = 0.65
FEWEST = 20  # steps of a behaviour without which nothing is said of it


@dataclass(frozen=True, eq=False)
class Rows:
    """One row per step at one anchor. x: site -> (rows, width); labels: the name of the step (None: no name);
    previous: the
    kind of step just written, as finely as the subject can tell ("start" before the first); groups: its problem;
    split: as in the module."""

    anchor: str
    x: dict[Site, Tensor]
    where: Where
    labels: tuple[str | None, ...]
    previous: tuple[str, ...]
    groups: tuple[str, ...]
    split: np.ndarray

    def index(self, *splits: str) -> Tensor:
        """Indices of the rows of some splits, ascending."""
        return torch.from_numpy(np.flatnonzero(np.isin(self.split, splits)))

    def picked(self, values: Sequence[Any], rows: Tensor) -> tuple[Any, ...]:
        """Entries of a sequence (rows,) at some indices."""
        return tuple(values[i] for i in rows.tolist())


@dataclass(frozen=True)
class Anchors:
    """Several anchors of every step, read in one pass: trace by trace the rows of the first anchor, then of the next.

    It is a rule of positions (see `activations.positions`).
    """

    rules: tuple[StepAnchor, ...]

    @property
    def reduce(self) -> Literal["mean", "max"]:
        """A row is the mean over its positions."""
        return "mean"

    def select(self, trace: ReasoningTrace) -> Picks:
        """The rows of a trace at every anchor."""
        parts = [rule.select(trace) for rule in self.rules]
        return Picks(*(torch.cat([getattr(p, f.name) for p in parts]) for f in fields(Picks)))

    def describe(self) -> dict[str, Any]:
        """The anchors in order."""
        return {"kind": "several", "rules": [rule.describe() for rule in self.rules]}

    def rows_of(self, anchor: str, traces: Sequence[ReasoningTrace]) -> Tensor:
        """Indices of the rows of one anchor among those of all, (rows,)."""
        marks = [
            torch.full((len(rule.select(trace)),), rule.anchor == anchor) for trace in traces for rule in self.rules
        ]
        return torch.cat(marks).nonzero()[:, 0]


@dataclass(frozen=True, eq=False)
class Material:
    """Traces of all splits (numbered through: document = index), their steps, and the names of the steps.

    anchors: those that are read together, in one pass.
    """

    subject: Subject
    sites: tuple[Site, ...]
    traces: tuple[ReasoningTrace, ...]
    outcomes: tuple[dict[str, Any], ...]
    anchors: tuple[str, ...] = ("mean", "next")

    @cached_property
    def spans(self) -> dict[int, list[StepSpan]]:
        """Steps by document."""
        return {t.document: self.subject.spans(t) for t in self.traces}

    @cached_property
    def labels(self) -> dict[int, list[str | None]]:
        """Names of the steps by document."""
        return {t.document: self.subject.labels(t) for t in self.traces}

    def of(self, split: str) -> list[ReasoningTrace]:
        """The traces of a split."""
        return [t for t in self.traces if t.meta["split"] == split]

    def fingerprint(self, *splits: str) -> str:
        """Hash of the traces of some splits: what everything learned from them depends on."""
        return traces_fingerprint(t for split in splits for t in self.of(split))

    @cached_property
    def behaviours(self) -> tuple[str, ...]:
        """Behaviours with enough steps in the `fit` split, and half as many in `select`, in the subject's order."""
        fit, select = (Counter(name for t in self.of(s) for name in self.labels[t.document]) for s in (FIT, SELECT))
        return tuple(b for b in self.subject.behaviours if fit[b] >= FEWEST and select[b] >= FEWEST // 2)

    @cached_property
    def _read(self) -> dict[tuple[Path, str], Rows]:
        return {}

    def rows(self, run: Run, anchor: str) -> Rows:
        """The states of all steps at an anchor, computed once and kept in the run's store."""
        key = (run.parts, anchor)
        if key not in self._read:
            self._read[key] = self._rows(run, anchor)
        return self._read[key]

    def _rows(self, run: Run, anchor: str) -> Rows:
        from overtone.activations.store import collect
        from overtone.activations.stream import ActivationStream

        together = self.anchors if anchor in self.anchors else (anchor,)
        rules = (StepAnchor(a, self.subject.delimiters, think=self.subject.think) for a in dict.fromkeys(together))
        positions = Anchors(tuple(rules))
        stream = ActivationStream(self.subject.model, self.traces, self.sites, positions)
        batch = collect(run.parts / "activations", stream).all()
        mine = positions.rows_of(anchor, self.traces)
        where = Where(batch.where.document[mine], batch.where.token[mine], batch.where.step[mine])
        at = list(zip(where.document.tolist(), where.step.tolist(), strict=True))
        kinds = {t.document: ["start", *self.subject.kinds(t)] for t in self.traces}
        before = tuple(kinds[doc][step] for doc, step in at)
        return Rows(
            anchor,
            {site: states[mine] for site, states in batch.x.items()},
            where,
            tuple(self.labels[doc][step] for doc, step in at),
            before,
            tuple(self.traces[doc].group for doc, _ in at),
            np.array([self.traces[doc].meta["split"] for doc, _ in at]),
        )


def chosen_sites(subject: Subject, settings: DiscoverSettings) -> tuple[Site, ...]:
    """Residual sites of the layers that settings name; by default all, or eight spread evenly in a deeper model.

    Raises SiteError for a layer that the model does not have.
    """
    n = subject.model.n_layers
    layers = settings.layers or (range(n) if n <= 8 else sorted({round(i * (n - 1) / 7) for i in range(8)}))
    return tuple(subject.model.check(Site("residual", layer)) for layer in layers)


def gather(run: Run, crew: Crew, settings: DiscoverSettings) -> Material:
    """Sample (or reuse) the traces of all splits. Raises DataError if the model writes no steps that have names."""
    subject = crew.subject
    sites = chosen_sites(subject, settings)
    key = [settings.seed, settings.sampling.to_dict(), subject.model.fingerprint, settings.labels]
    train = _sampled(run, crew, "traces", subject.prompts("train", settings.sampling.n_traces), key)
    test = _sampled(run, crew, "held-out traces", subject.prompts("test", settings.causal.n_problems), key)
    parts = split_groups(train, {FIT: FIT_SHARE, SELECT: 1 - FIT_SHARE}, settings.seed)
    parts[TEST] = test
    if isinstance(subject, BundledSubject):
        parts[WORDING] = subject.written_traces(200, "held_out", settings.seed)
    traces = [replace(t, meta={**t.meta, "split": split}) for split, part in parts.items() for t in part]
    numbered = tuple(replace(t, document=i) for i, t in enumerate(traces))
    outcomes = tuple(t.meta.pop("outcome", {}) for t in numbered)
    material = Material(subject, sites, numbered, outcomes, (settings.naming.anchor, settings.boundary.anchor))
    if len(material.behaviours) < 2:
        found = Counter(str(n) for names in material.labels.values() for n in names)
        raise DataError(
            f"the model's traces show fewer than two kinds of steps in {FEWEST} steps or more ({dict(found)}). "
            "Give more or "
            "longer traces (n_traces, max_new_tokens), prompts that make it reason in paragraphs, or another --labels."
        )
    return material


def _sampled(run: Run, crew: Crew, name: str, prompts: Sequence[Prompt], key: list) -> list[ReasoningTrace]:
    """Traces of unsteered generation, their outcome in meta; kept as a folder of traces."""
    import time

    path = run.path(name.replace(" ", "-"), key, [asdict(p) for p in prompts])
    if path.exists():
        run.reused.append(name)
        return load_traces(path)
    started, size = (
        time.monotonic(),
        max(16, min(crew.settings.sampling.batch_rows, -(-len(prompts) // (2 * crew.settings.workers)))),
    )
    tasks = in_chunks(name, prompts, size)
    found: dict[str, Answers] = dict(crew.all(tasks, f"sampling {name}"))
    traces = [
        replace(t, document=i, meta={**t.meta, "outcome": row})
        for i, (t, row) in enumerate(
            pair for task in tasks for pair in zip(found[task.name].traces, found[task.name].outcomes, strict=True)
        )
    ]
    save_traces(path, traces, seed=crew.settings.seed, sources={"model": crew.subject.model.fingerprint})
    run.spent(name, time.monotonic() - started)
    return traces
