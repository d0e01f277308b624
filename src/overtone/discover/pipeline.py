"""`discover`: the whole job, stage by stage; every stage is kept in the run's folder and reused by a run that
resumes."""

from __future__ import annotations

import platform
import sys
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from overtone.core.artifacts import library_version, write_bytes, write_json
from overtone.core.memory import give_back
from overtone.core.progress import say
from overtone.core.report import Finding, Report
from overtone.core.sites import Site
from overtone.discover import assemble, effects, findings
from overtone.discover.assured import confidence
from overtone.discover.causality import CONFIDENT, SECONDARY_SHARE, STEERED, Causality, Experiment
from overtone.discover.checks import refuse_early
from overtone.discover.choice import Choice, Chooser
from overtone.discover.crew import Crew
from overtone.discover.decompose import Decomposition, decompose, sizes
from overtone.discover.forecast import FORECASTS, Forecast
from overtone.discover.material import FIT, SELECT, TEST, Material, gather
from overtone.discover.naming import Naming
from overtone.discover.page.sections import plain
from overtone.discover.run import Run
from overtone.discover.settings import DiscoverSettings
from overtone.discover.subject import BundledSubject, Subject, make_subject
from overtone.discover.vectors import boundaries, candidates, steerable, steering_sites

if TYPE_CHECKING:
    from collections.abc import Sequence

KL_TRACES = 24
TRANSFER_SHARE = 0.3  # of the held-out problems' number


@dataclass(frozen=True, eq=False)
class _Causal:
    """Everything the causal part leaves behind."""

    main: Causality
    tables: effects.Tables
    confidence_data: dict[str, Any]
    confidence_site: Site
    transfer: Causality | None
    transfer_tables: effects.Tables | None
    trials: list[dict[str, Any]]
    kl: dict[tuple[str, float], float]
    missing: list[str]  # behaviours for which no vector could be made


def discover(settings: DiscoverSettings, out: str | Path, *, resume: bool = False) -> Report:
    """Find a model's reasoning vectors without labels, name them, and prove what they do; writes report.json and
    report.html into `out` (see DiscoverSettings for everything that decides the result).

    resume: reuse what an earlier run left in `out` where its settings still fit. An interrupted run leaves finished
    parts
    only. Raises OvertoneError subclasses for everything a user can get wrong, before anything is written where
    possible.
    """
    started = time.monotonic()
    subject = make_subject(settings)
    refuse_early(subject, settings)
    run = Run(out, resume=resume)
    with Crew(subject, settings) as crew:
        say(_plan(subject, settings))
        material = gather(run, crew, settings)
        named = decompose(run, material, settings, settings.naming, bases=True)
        steered = steering_sites(material, settings)
        nexts = decompose(run, material, settings, settings.boundary, bases=False, sites=steered)
        naming = Naming(material, named, settings.seed, sizes(run, material, settings, named))
        causal = _causal(run, crew, material, nexts, settings)
        report = _report(run, material, naming, causal, settings, started)
    _write(run, report)
    return report


def _plan(subject: Subject, settings: DiscoverSettings) -> str:
    """What the run will cost, roughly: traces are what takes time, copies of the model what takes memory."""
    n, doses, k = settings.causal.n_problems, len(settings.causal.doses) or 4, settings.causal.n_random
    behaviours = len(settings.causal.behaviours) or max(1, len(subject.behaviours) - len(subject.frame))
    sampled, full = settings.sampling.n_traces + n, min(2, behaviours)
    beside = full * 10 + (behaviours - full) * doses + 2
    steered = full * n * (doses + 2 * k) + beside * SECONDARY_SHARE * n
    size = sum(p.numel() * p.element_size() for p in subject.model.model.parameters())
    copies = 1 + (settings.workers if settings.workers > 1 else 0)
    return (
        f"discover: about {sampled + round(steered, -2):.0f} traces of at most {settings.sampling.max_new_tokens} "
        f"tokens ({sampled} sampled, the rest steered) by {settings.workers} workers; {copies} copies of the model "
        f"take {copies * (size / 2**30 + 0.45):.1f} GB. Interrupt it any time; --resume goes on."
    )


def _causal(run: Run, crew: Crew, material: Material, nexts: Decomposition, settings: DiscoverSettings) -> _Causal:
    behaviours = steerable(material, settings)
    choice, tried = _chosen(run, material, nexts, behaviours, settings)
    give_back()
    full = list(choice)[:2]
    site = choice[full[0]].site if full else list(nexts.dictionaries)[-1]
    data, direction = confidence(run, material, nexts, site, settings)
    give_back()
    experiment = Experiment(run, crew, material, nexts.rows, settings)
    for behaviour, one in choice.items():
        experiment.plan_behaviour(behaviour, one, full=behaviour in full)
    experiment.plan_random([choice[b] for b in full])
    experiment.plan_confidence(direction, settings.confidence.budget)
    main = experiment.results()
    transfer = _transfer(run, crew, material, nexts, {b: choice[b] for b in full}, settings)
    kl = _divergences(material, main)
    return _Causal(
        main,
        effects.Tables(main, settings),
        data,
        site,
        transfer,
        None if transfer is None else effects.Tables(transfer, settings),
        tried,
        kl,
        [b for b in behaviours if b not in choice],
    )


def _chosen(
    run: Run, material: Material, nexts: Decomposition, behaviours: Sequence[str], settings: DiscoverSettings
) -> tuple[dict[str, Choice], list[dict[str, Any]]]:
    """The vector and the doses of every behaviour, by forecasts on the selection split."""
    found = candidates(material, nexts, behaviours)
    decided = [
        FORECASTS,
        settings.seed,
        settings.labels,
        settings.causal.doses,
        behaviours,
        settings.boundary.to_dict(),
    ]
    names = [c.name for c in found]
    key = [*decided, names, material.subject.model.fingerprint, material.fingerprint(FIT, SELECT)]

    def make() -> dict[str, Any]:
        if not found:
            return {"choices": {}, "trials": []}
        forecast = Forecast(material, nexts.rows, seed=settings.seed)
        chosen, tried = Chooser(forecast, boundaries(material), settings).choices(found, behaviours)
        return {"choices": {b: one.to_dict() for b, one in chosen.items()}, "trials": [t.to_dict() for t in tried]}

    data = run.data("choice", key, make)
    return {b: Choice.from_dict(one, found) for b, one in data["choices"].items()}, data["trials"]


def _transfer(
    run: Run,
    crew: Crew,
    material: Material,
    nexts: Decomposition,
    choice: dict[str, Choice],
    settings: DiscoverSettings,
) -> Causality | None:
    """The extremes of the vectors on the second distribution of the bundled problems; None for other subjects."""
    subject = material.subject
    if not isinstance(subject, BundledSubject) or not choice:
        return None
    experiment = Experiment(run, crew, material, nexts.rows, settings)
    n = max(4, round(TRANSFER_SHARE * settings.causal.n_problems))
    experiment.prompts = tuple(subject.prompts("test", n, kind="sums"))
    experiment.plan("unsteered", "unsteered", "", None, {0.0: ()})
    for behaviour, one in choice.items():
        experiment.add(STEERED, one.steered.kind, behaviour, one.steered.direction, one.extremes)
    experiment.plan_random(list(choice.values()), n=1)
    found = experiment.results("steering other problems")
    plain_arm = found.of("unsteered")[0].arms[0.0]
    return replace(found, baseline=plain_arm, series=tuple(s for s in found.series if s.role != "unsteered"))


def _divergences(material: Material, causal: Causality) -> dict[tuple[str, float], float]:
    """KL to the unsteered model at edited positions of unsteered traces, for every added vector and dose."""
    from overtone.discover.vectors import add_arm
    from overtone.steering.measure import Comparison

    comparison = Comparison(material.subject.model, material.of(TEST)[:KL_TRACES])
    when, found = boundaries(material), {}
    for series in causal.of(STEERED):
        for dose in series.arms:
            assert series.direction is not None
            found[series.behaviour, dose] = comparison.measure(add_arm(series.direction, dose, when)).mean
    return found


def _report(
    run: Run, material: Material, naming: Naming, causal: _Causal, settings: DiscoverSettings, started: float
) -> Report:
    recognition, layers, lengths = naming.recognition(), naming.separability(), naming.length_structure()
    clusters, members = naming.clusters
    injected = causal.main.of(CONFIDENT)
    found: list[Finding] = [
        *findings.recovery(recognition),
        *findings.separability(layers),
        *effects.causality(causal.main, causal.tables),
        *map(effects.without_vector, causal.missing),
        *findings.confidence(causal.confidence_data, injected[0] if injected else None, causal.tables),
        *findings.length(lengths),
        *findings.transfer(causal.transfer, causal.transfer_tables),
    ]
    facts = assemble.model_facts(material, settings.seed)
    sections = {
        "summary": assemble.summary(found, facts, causal.main, causal.tables),
        "model": facts,
        "dictionaries": naming.facts(settings.naming.preset),
        "atoms": naming.atom_map(members),
        "separability": layers,
        "auroc": recognition,
        "doses": assemble.dose_curves(causal.main, causal.tables, causal.kl),
        "traces": assemble.side_by_side(material, causal.main),
        "features": naming.cards(),
        "clusters": clusters,
        "confidence": assemble.confidence_section(
            causal.confidence_data,
            str(causal.confidence_site),
            naming,
            injected[0] if injected else None,
            causal.tables,
        ),
        "length": lengths,
        "transfer": assemble.transfer_rows(causal.transfer, causal.transfer_tables, "sums"),
        "trials": causal.trials,
    }
    provenance = _provenance(run, material.subject, settings, time.monotonic() - started)
    return Report("Reasoning behaviours, discovered and steered", tuple(found), provenance, plain(sections))


def _provenance(run: Run, subject: Subject, settings: DiscoverSettings, seconds: float) -> dict[str, Any]:
    import torch
    import transformers

    versions = {
        "overtone": library_version(),
        "python": platform.python_version(),
        "torch": str(torch.__version__),
        "transformers": transformers.__version__,
    }
    return {
        "settings": settings.to_dict(),
        "seed": settings.seed,
        "model": {"name": subject.model.name, "fingerprint": subject.model.fingerprint},
        "labels": subject.label_source,
        "versions": versions,
        "command": " ".join(["overtone", *sys.argv[1:]]),
        "seconds": {**run.seconds, "total": round(seconds, 1)},
        "reused": sorted(set(run.reused)),
    }


def _write(run: Run, report: Report) -> None:
    from overtone.discover.page.render import render

    data = report.to_dict()
    write_json(run.folder / "report.json", data)
    write_bytes(run.folder / "report.html", render(data).encode())
