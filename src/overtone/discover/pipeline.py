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
from overtone.core.progress import say
from overtone.core.report import Finding, Report
from overtone.core.sites import Site
from overtone.discover import assemble, effects, findings
from overtone.discover.assured import confidence
from overtone.discover.causality import CONFIDENT, STEERED, Causality, Experiment, chosen, most_wanted, sites_of
from overtone.discover.checks import refuse_early
from overtone.discover.crew import Crew
from overtone.discover.decompose import Decomposition, decompose
from overtone.discover.material import FIT, SELECT, TEST, Material, gather
from overtone.discover.naming import Naming
from overtone.discover.page.sections import plain
from overtone.discover.run import Run
from overtone.discover.settings import DiscoverSettings
from overtone.discover.subject import BundledSubject, Subject, make_subject
from overtone.discover.vectors import FROM_ATOMS, KINDS, MATCHED, Candidate, Trial, candidates, steerable, trials

if TYPE_CHECKING:
    from overtone.directions.direction import Direction

TRIAL_PROBLEMS = 40
KL_TRACES = 40
TRANSFER_SHARE = 0.4  # of the held-out problems' number


@dataclass(frozen=True, eq=False)
class _Causal:
    """Everything the causal part leaves behind."""

    main: Causality
    tables: effects.Tables
    confidence_data: dict[str, Any]
    confidence_site: Site
    transfer: Causality | None
    transfer_tables: effects.Tables | None
    trials: list[Trial]
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
        nexts = decompose(run, material, settings, settings.boundary, bases=False)
        naming = Naming(material, named, settings.seed)
        causal = _causal(run, crew, material, nexts, naming, settings)
        report = _report(run, material, naming, causal, settings, started)
    _write(run, report)
    return report


def _plan(subject: Subject, settings: DiscoverSettings) -> str:
    """What the run will cost, roughly: traces are what takes time, copies of the model what takes memory."""
    n, doses, k = settings.causal.n_problems, len(settings.causal.doses), settings.causal.n_random
    behaviours = len(settings.causal.behaviours) or max(1, len(subject.behaviours) - len(subject.frame))
    sampled = settings.sampling.n_traces + n
    full = min(2, behaviours)
    steered = full * n * (doses + 10 / 3) + (behaviours - full) * n * doses / 2 + 2 * k * n
    steered += behaviours * len(KINDS) * TRIAL_PROBLEMS * 2 * subject.model.n_layers / 2
    size = sum(p.numel() * p.element_size() for p in subject.model.model.parameters())
    copies = 1 + (settings.workers if settings.workers > 1 else 0)
    return (
        f"discover: about {sampled + round(steered, -2):.0f} traces of at most {settings.sampling.max_new_tokens} "
        f"tokens ({sampled} sampled, the rest steered) by {settings.workers} workers; {copies} copies of the model "
        f"take {copies * (size / 2**30 + 0.45):.1f} GB. Interrupt it any time; --resume goes on."
    )


def _causal(
    run: Run, crew: Crew, material: Material, nexts: Decomposition, naming: Naming, settings: DiscoverSettings
) -> _Causal:
    behaviours = steerable(material, settings)
    found = [c for c in candidates(material, nexts, naming, behaviours) if _may_steer(c, material, settings)]
    tried = _tried(run, crew, material, found, settings)
    choice = chosen(tried, behaviours, FROM_ATOMS)
    site = (sites_of(choice) or material.sites[-1:])[0]
    data, direction = confidence(run, material, nexts, site, settings)
    experiment = Experiment(run, crew, material, nexts.rows, settings)
    for behaviour, (steered, rival) in choice.items():
        experiment.plan_behaviour(behaviour, steered, rival, full=behaviour in most_wanted(behaviours))
    wanted = {b: choice[b] for b in most_wanted(list(choice))}
    for place in sites_of(wanted) or [site]:
        steered_there = (c.direction for c, _ in choice.values() if c.direction.site == place)
        experiment.plan_random(next(steered_there, direction))
    experiment.plan_confidence(direction, settings.confidence.budget)
    main = experiment.results()
    transfer = _transfer(run, crew, material, nexts, choice, settings)
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


def _may_steer(c: Candidate, material: Material, settings: DiscoverSettings) -> bool:
    """The layer that was asked for; else the later half of the layers, where a step's kind is decided."""
    if c.kind not in (*FROM_ATOMS, MATCHED):
        return False
    layer, layers = settings.causal.layer, sorted(s.layer for s in material.sites)
    return c.direction.site.layer == layer if layer >= 0 else c.direction.site.layer in layers[len(layers) // 2 :]


def _tried(run: Run, crew: Crew, material: Material, found: list[Candidate], settings: DiscoverSettings) -> list[Trial]:
    dose = max(abs(d) for d in settings.causal.doses)
    names, read = [c.name for c in found], material.fingerprint(FIT, SELECT)
    key = [settings.to_dict(), material.subject.model.fingerprint, read, names, dose]
    key[0].pop("workers")
    rows = run.data("trials", key, lambda: [t.to_dict() for t in trials(crew, material, found, dose, TRIAL_PROBLEMS)])
    return [Trial(c, r["low"], r["base"], r["high"], r["unknown"]) for c, r in zip(found, rows, strict=True)]


def _transfer(
    run: Run, crew: Crew, material: Material, nexts: Decomposition, choice: dict, settings: DiscoverSettings
) -> Causality | None:
    """The extremes of every vector on the second distribution of the bundled problems; None for other subjects."""
    subject = material.subject
    if not isinstance(subject, BundledSubject) or not choice:
        return None
    experiment = Experiment(run, crew, material, nexts.rows, settings)
    n = max(4, round(TRANSFER_SHARE * settings.causal.n_problems))
    experiment.prompts = tuple(subject.prompts("test", n, kind="sums"))
    experiment.plan("unsteered", "unsteered", "", None, {0.0: ()})
    for behaviour in most_wanted(list(choice)):
        steered = choice[behaviour][0]
        experiment.add(STEERED, steered.kind, behaviour, steered.direction, experiment.extremes)
    like: Direction = next(iter(choice.values()))[0].direction
    experiment.plan_random(like)
    found = experiment.results("steering other problems")
    plain_arm = found.of("unsteered")[0].arms[0.0]
    return replace(found, baseline=plain_arm, series=tuple(s for s in found.series if s.role != "unsteered"))


def _divergences(material: Material, causal: Causality) -> dict[tuple[str, float], float]:
    """KL to the unsteered model at edited positions of unsteered traces, for every added vector and dose."""
    from overtone.discover.vectors import add_arm, boundaries
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
        "trials": [t.to_dict() for t in causal.trials],
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
