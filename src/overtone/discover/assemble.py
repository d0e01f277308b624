"""From measurements to the sections of the report: dose curves, traces side by side, model facts, summary."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from overtone.core.report import Finding
from overtone.core.seeds import numpy_generator
from overtone.data.traces import ReasoningTrace
from overtone.discover.causality import (
    BIAS,
    CONFIDENT_CONTROL,
    RANDOM,
    RISE,
    RIVAL,
    SHUFFLED,
    STEERED,
    Causality,
    Series,
)
from overtone.discover.effects import Tables
from overtone.discover.material import TEST, Material
from overtone.discover.naming import Naming, shown
from overtone.discover.page.sections import (
    BehaviourShare,
    ConfidenceLatent,
    ConfidenceResult,
    DoseCurve,
    DosePoint,
    DoseSeries,
    EffectRow,
    Estimate,
    KeyNumber,
    ModelFacts,
    Summary,
    TraceComparison,
    TracePanel,
    TraceStep,
    TransferRow,
)
from overtone.discover.subject import BundledSubject
from overtone.evaluate.intervals import bootstrap_mean
from overtone.evaluate.outcomes import Outcomes
from overtone.evaluate.steering_effect import DoseRow, summarise

ROLES = {STEERED: "steered", RIVAL: "rival", SHUFFLED: "shuffled", BIAS: "bias", RANDOM: "random", RISE: "steered"}
Divergences = Mapping[tuple[str, float], float]  # (behaviour, dose) -> nats at edited positions


def dose_curves(causal: Causality, tables: Tables, kl: Divergences) -> list[DoseCurve]:
    """Per behaviour the added vector with everything that ran beside it, and RISE's own operator by itself."""
    curves = []
    for series in causal.of(STEERED):
        b = series.behaviour
        near = causal.random_beside(series)
        beside = [s for role in (RIVAL, SHUFFLED, BIAS) for s in causal.of(role, b)] + near
        summary = summarise(tables.of(series), b)
        site = str(series.direction.site) if series.direction else ""
        random = [abs(e.effects[b].value) for s in near for e in tables.of(s).rows]
        curves.append(
            DoseCurve(
                b,
                site,
                "mean state norms",
                tuple(_series(s, tables, b, kl) for s in [series, *beside]),
                "add",
                _problems(series),
                None,
                max(random, default=None),
                summary.monotonicity.value,
                f"vector: {series.name}",
            )
        )
        for scaled in causal.of(RISE, b):
            curves.append(
                DoseCurve(
                    b,
                    site,
                    "RISE's alpha (1 removes the component)",
                    (_series(scaled, tables, b, {}),),
                    "scale",
                    _problems(scaled),
                    None,
                    None,
                    tables.of(scaled).monotonicity[b].value,
                    "h - alpha v (v.h): negative alpha amplifies what is there",
                )
            )
    return curves


def _problems(series: Series) -> int:
    """How many problems each of its arms answered."""
    return len(next(iter(series.arms.values())).outcomes)


def _series(series: Series, tables: Tables, behaviour: str, kl: Divergences) -> DoseSeries:
    role = "steered" if series.role == RISE else ROLES[series.role]
    steered = series.role == STEERED
    points = [_point(row, kl.get((behaviour, row.dose)) if steered else None) for row in tables.of(series).rows]
    return DoseSeries(series.name, role, tuple(points))


def _point(row: DoseRow, kl: float | None) -> DosePoint:
    m = {name: shown(e) if np.isfinite(e.value) else None for name, e in row.measures.items()}
    return DosePoint(
        row.dose,
        {b: shown(e) for b, e in row.counts.items()},
        {b: shown(e) for b, e in row.shares.items()},
        m["accuracy"],
        m["tokens"],
        m["steps"],
        m["arithmetic"],
        m["finished"],
        None if kl is None else Estimate(kl),
    )


def side_by_side(material: Material, causal: Causality, n: int = 2) -> list[TraceComparison]:
    """For each steered behaviour, the problems on which suppressed, unsteered and amplified answers differ most in
    it."""
    found = []
    test = material.of(TEST)
    for series in causal.of(STEERED):
        low, high = min(series.arms), max(series.arms)
        arms = {"suppressed": series.arms[low], "unsteered": causal.baseline, "amplified": series.arms[high]}
        spread = []
        for i in range(min(len(kept.responses) for kept in arms.values())):
            counts = [kept.outcomes[i][f"count.{series.behaviour}"] for kept in arms.values()]
            steps = max(kept.outcomes[i]["steps"] for kept in arms.values())
            spread.append((counts[2] - counts[0] - 0.1 * steps, i))
        for _, i in sorted(spread, reverse=True)[:n]:
            panels = [_panel(material, test[i], kept, i, role) for role, kept in arms.items()]
            site = str(series.direction.site) if series.direction else ""
            prompt = str(test[i].meta.get("prompt", ""))
            found.append(TraceComparison(series.behaviour, prompt, tuple(panels), site, "mean state norms"))
    return found


def _panel(material: Material, prompt: ReasoningTrace, kept: Any, i: int, role: str) -> TracePanel:
    row = kept.outcomes[i]
    trace = ReasoningTrace(
        prompt.prompt_ids,
        tuple(kept.responses[i]),
        0,
        prompt.group,
        {**prompt.meta, "finished": row.get("finished", True)},
    )
    subject, edited = material.subject, bool(kept.dose)
    steps = tuple(
        TraceStep(text, label or "unknown", edited, valid)
        for text, label, valid in zip(
            subject.step_texts(trace), subject.labels(trace), subject.validity(trace), strict=True
        )
    )
    correct, finished = row.get("correct"), row.get("finished")
    return TracePanel(
        role,
        steps,
        kept.dose,
        None if correct is None else bool(correct),
        None if finished is None else bool(finished),
        row["tokens"],
    )


def model_facts(material: Material, seed: int) -> ModelFacts:
    """Size of the subject and how well it does on the held-out problems without steering."""
    model, subject = material.subject.model, material.subject
    outcomes = Outcomes.from_rows(
        [row for row, t in zip(material.outcomes, material.traces, strict=True) if t.meta["split"] == TEST]
    )
    rng = numpy_generator(seed, "facts")

    def mean(column: str, over: str = "") -> Estimate | None:
        top = outcomes.values[column]
        if not np.isfinite(top).any():
            return None
        if not over:
            known = np.flatnonzero(np.isfinite(top))
            return shown(bootstrap_mean(top[known], [outcomes.problem[i] for i in known], rng=rng))
        return Estimate(float(np.nansum(top) / max(1.0, np.nansum(outcomes.values[over]))))

    total = float(np.nansum(outcomes.values["steps"]))
    reference = _generator_shares(subject, seed)
    shares = [
        BehaviourShare(b, float(np.nansum(outcomes.values[f"count.{b}"]) / total), reference.get(b))
        for b in outcomes.behaviours
    ]
    return ModelFacts(
        model.name,
        model.fingerprint,
        sum(p.numel() for p in model.model.parameters()),
        model.n_layers,
        model.width("residual.0"),
        model.vocab_size,
        len(material.traces),
        sum(map(len, material.spans.values())),
        subject.label_source,
        mean("correct"),
        mean("arithmetic_valid", "arithmetic_total"),
        mean("legal", "steps"),
        mean("finished"),
        mean("tokens"),
        tuple(shares),
    )


def _generator_shares(subject: Any, seed: int) -> dict[str, float]:
    """Share of each behaviour in what the bundled model was trained on; empty for other models."""
    if not isinstance(subject, BundledSubject):
        return {}
    traces = subject.written_traces(300, "seen", seed)
    labels = [b for t in traces for b in t.meta["behaviours"]]
    return {b: labels.count(b) / len(labels) for b in subject.behaviours}


def confidence_section(
    data: Mapping[str, Any], site: str, naming: Naming, series: Series | None, tables: Tables
) -> ConfidenceResult:
    """The search and, where it was injected, its effects."""
    effects = []
    if series is not None:
        table = tables.of(series)
        base, row = table.at(0.0), table.rows[-1]
        beside = next((tables.of(s).at(row.dose) for s in tables.causality.of(CONFIDENT_CONTROL)), None)
        pairs = [(f"{b} steps", "counts", b, "per trace") for b in table.behaviours if base.counts[b].value > 0]
        pairs += [("accuracy", "measures", "accuracy", "share"), ("tokens", "measures", "tokens", "per trace")]
        for name, group, key, unit in pairs:
            values = [None if r is None else getattr(r, group)[key] for r in (base, row, beside)]
            if values[0] is not None and values[1] is not None and np.isfinite(values[1].value):
                effects.append(
                    EffectRow(
                        name, shown(values[0]), shown(values[1]), None if values[2] is None else shown(values[2]), unit
                    )
                )
    top = tuple(ConfidenceLatent(j, score) for j, score in data["top"])
    return ConfidenceResult(
        site,
        data["before"],
        data["after"],
        tuple(data["random"]),
        data["budget"],
        tuple(data["path"]),
        data["rank_stability"],
        top,
        tuple(effects),
    )


def transfer_rows(causal: Causality | None, tables: Tables | None, name: str) -> list[TransferRow]:
    """Every vector on the second distribution: unsteered, amplified, suppressed, and a random direction."""
    if causal is None or tables is None:
        return []
    rows = []
    for series in causal.of(STEERED):
        b, table = series.behaviour, tables.of(series)
        random = [tables.of(s).rows[-1].counts[b] for s in causal.random_beside(series)]
        rows.append(
            TransferRow(
                b,
                name,
                shown(table.at(0.0).counts[b]),
                shown(table.rows[-1].counts[b]),
                shown(table.rows[0].counts[b]),
                shown(random[0]) if random else None,
                "steps per response",
                len(causal.prompts),
            )
        )
    return rows


def summary(findings: Sequence[Finding], facts: ModelFacts, causal: Causality, tables: Tables) -> Summary:
    """The lead of the report, written from the numbers."""
    by_id = {f.id: f for f in findings}
    holds = sum(f.holds is True for f in findings)
    tested = sum(f.holds is not None for f in findings)
    sentences = [
        f"The {facts.n_steps} reasoning steps that {facts.name} wrote in {facts.n_traces} traces were decomposed into "
        "directions without labels, the directions were named, and those of its behaviours were turned up and down "
        f"while it answered {len(causal.prompts)} held-out problems.",
        f"{holds} of {tested} claims hold; every number stands beside its control.",
    ]
    numbers = [KeyNumber("claims that hold", f"{holds} of {tested}", "the rest are reported as not holding")]
    for split in ("problems",):
        f = by_id.get(f"a.mean.{split}")
        if f is not None and f.measured is not None:
            numbers.append(
                KeyNumber("best-latent AUROC, mean", f"{f.measured:.2f}", f"{f.control_name}: {f.control:.2f}")
            )
    for series in causal.of(STEERED)[:3]:
        b, table = series.behaviour, tables.of(series)
        low, base, high = (r.counts[b].value for r in (table.rows[0], table.at(0.0), table.rows[-1]))
        numbers.append(
            KeyNumber(
                f"{b} steps per trace", f"{low:.1f} / {base:.1f} / {high:.1f}", "suppressed / unsteered / amplified", b
            )
        )
    return Summary(tuple(sentences), tuple(numbers))
