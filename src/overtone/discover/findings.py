"""The claims of RISE (arXiv 2512.23988) beside what this run measured, each with its control.

Letters follow `overtone study rise`: (a) recoverable without labels, (b) separable, (c) causal, (d) confidence vectors,
(e) length structure, (f) transfer. Thresholds are this project's and stand in the claims.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from overtone.core.report import Finding
from overtone.discover.causality import CONFIDENT_CONTROL, STEERED, Causality, Series
from overtone.discover.effects import Tables
from overtone.discover.page.sections import BehaviourAuroc, Estimate, LayerSeparability, LengthResult
from overtone.evaluate.steering_effect import (
    MEASURES,
)

RECOVERED = 0.9  # AUROC
CORE = ("reflection", "backtracking", "alternative", "conclusion")


# ------------------------------------------------------------------------------------------------------ (a) recovery
def recovery(rows: Sequence[BehaviourAuroc]) -> list[Finding]:
    """One finding per behaviour and held-out split, and one for the mean over the core behaviours of each split."""
    if not rows:
        claim, why = "behaviours are recognised by one latent found without labels", "too few steps in held-out traces"
        return [Finding("a.mean.problems", claim, None, "AUROC", 0, None, note=why)]
    found = [_recovered(row) for row in rows]
    for split in dict.fromkeys(row.split for row in rows):
        part = [row for row in rows if row.split == split]
        core = [row for row in part if row.behaviour in CORE] or part
        found.append(_mean_recovery(split, core))
    return found


def _recovered(row: BehaviourAuroc) -> Finding:
    name, beaten = _strongest(row)
    value = row.auroc.value
    holds = None if value is None else bool(value > max(beaten, 0.5) and (row.auroc.low or 0) > 0.5)
    return Finding(
        f"a.{row.behaviour}.{row.split}",
        f"one latent found without labels recognises {row.behaviour} (held-out {row.split})",
        value,
        "AUROC",
        row.n or 0,
        holds,
        "behaviours form regions of the decoder space (no AUROC given)",
        "higher",
        _interval(row.auroc),
        beaten,
        name,
        "steps",
        f"latent {row.latent} of {row.n_latents} at {row.site}, anchor {row.anchor}",
    )


def _strongest(row: BehaviourAuroc) -> tuple[str, float]:
    """The control with the highest score."""
    known = {n: e.value for n, e in row.controls.items() if e.value is not None}
    name = max(known, key=lambda n: known[n])
    return name, known[name]


def _value(e: Estimate) -> float:
    """NaN where there is none."""
    return float("nan") if e.value is None else e.value


def _mean_recovery(split: str, rows: Sequence[BehaviourAuroc]) -> Finding:
    mean = float(np.mean([_value(r.auroc) for r in rows]))
    bases = [n for n in rows[0].controls if n != "shuffled labels"]
    beaten = {n: sum(_value(r.auroc) > (r.controls[n].value or 0) for r in rows if n in r.controls) for n in bases}
    shuffled = float(np.mean([_value(r.controls["shuffled labels"]) for r in rows if "shuffled labels" in r.controls]))
    need = max(1, len(rows) - 1)
    enough = all(b >= need for b in beaten.values())
    best = max((float(np.mean([_value(r.controls[n]) for r in rows if n in r.controls])) for n in bases), default=0.5)
    note = (
        "; ".join(f"above {n} for {b} of {len(rows)}" for n, b in beaten.items()) + f"; shuffled labels {shuffled:.3f}"
    )
    return Finding(
        f"a.mean.{split}",
        f"best single latents reach a mean of {RECOVERED} over {', '.join(r.behaviour for r in rows)}; behaviour by "
        f"behaviour they beat each other basis for at least {need} of {len(rows)}; shuffled labels give 0.5 (held-out "
        f"{split})",
        mean,
        "AUROC",
        len(rows),
        bool(mean >= RECOVERED and enough and abs(shuffled - 0.5) <= 0.05),
        "",
        "higher",
        None,
        best,
        "mean of the best other basis (not part of the claim)",
        "behaviours",
        note,
    )


# -------------------------------------------------------------------------------------------------- (b) separability
def separability(layers: Sequence[LayerSeparability]) -> list[Finding]:
    """The best layer's silhouette against permuted labels, and where in depth the best layer lies."""
    known = [row for row in layers if row.silhouette is not None]
    if not known:
        return [
            Finding(
                "b.silhouette",
                "labelled atoms lie apart by behaviour",
                None,
                "silhouette",
                0,
                None,
                note="too few named atoms",
            )
        ]
    best = max(known, key=lambda row: row.silhouette or -1)
    above = [row.layer for row in known if (row.silhouette or -1) > max(0.0, row.null_high or 0.0)]
    depth = known.index(best) / max(1, len(known) - 1)
    pair = best.pairs.get("backtracking / reflection")
    return [
        Finding(
            "b.silhouette",
            "labelled atoms lie apart by behaviour: silhouette above 0 and above 95 % of label "
            "permutations in some layer",
            best.silhouette,
            "silhouette (cosine)",
            best.n_atoms or 0,
            bool(above),
            "positive, rising with depth",
            "higher",
            None,
            best.null_high,
            "95th percentile of permuted labels",
            "atoms",
            f"{best.site}, p = {best.p_value:.3g}; layers above their null: {above}; "
            f"reflection against backtracking: {pair}",
        ),
        Finding(
            "b.depth",
            "the layers that separate best are in the middle or later (relative depth of the best at least one half)",
            depth,
            "share of depth",
            len(known),
            depth >= 0.5,
            "mid-to-late layers best",
            "",
            None,
            None,
            "",
            "layers",
            "silhouette by layer: " + ", ".join(f"{row.silhouette:.3f}" for row in known),
        ),
    ]


# ------------------------------------------------------------------------------------- (d) confidence, (e) length, (f)
def confidence(data: Mapping[str, Any], series: Series | None, tables: Tables) -> list[Finding]:
    """Entropy of the search against random scores of equal norm, its ranking, and what the vector does when
    injected."""
    random = data["random"]
    found = [
        Finding(
            "d.entropy",
            "searched scores lower the entropy of the next token at anchors below the baseline and below every "
            "random score vector of equal norm",
            data["after"],
            "nats",
            len(random),
            bool(data["after"] < min([data["before"], *random])),
            "",
            "lower",
            None,
            min(random, default=None),
            "lowest of the random score vectors",
            "random vectors",
            f"baseline {data['before']:.4f}",
        ),
        Finding(
            "d.ranking",
            "holding the norm at the budget keeps the ranking of latents (Spearman at least 0.8)",
            data["rank_stability"],
            "Spearman",
            len(data["top"]),
            data["rank_stability"] >= 0.8,
            "",
            "higher",
            None,
            0.0,
            "unrelated rankings",
            "latents shown",
        ),
    ]
    if series is not None:
        found += _injected(series, tables)
    return found


def _injected(series: Series, tables: Tables) -> Iterable[Finding]:
    table = tables.of(series)
    row = table.rows[-1]
    if "reflection" not in row.effects:
        return
    e = row.effects["reflection"]
    beside = [tables.of(s).at(row.dose).effects["reflection"].value for s in tables.causality.of(CONFIDENT_CONTROL)]
    yield Finding(
        "d.reflection",
        "injecting the confidence vector lowers reflection",
        float(np.exp(e.value)),
        "ratio of counts",
        row.n_traces,
        bool(e.value < 0 and e.excludes(0) and all(e.value < other for other in beside)),
        "90.53 -> 33.77 reflection steps (AIME25)",
        "lower",
        None if e.interval is None else (float(np.exp(e.low)), float(np.exp(e.high))),
        float(np.exp(beside[0])) if beside else 1.0,
        "a random direction of equal norm" if beside else "unsteered",
        "traces",
        ", ".join(f"{name} {row.changes[name].value:+.3f}" for name in ("accuracy", "tokens") if name in MEASURES),
    )


def length(result: LengthResult) -> list[Finding]:
    """Whether atoms of long and of short responses lie apart in some layer."""
    known = [row for row in result.layers if row.silhouette is not None]
    if not known:
        claim, why = "atoms that fire in long responses lie apart from those of short ones", "too few atoms to compare"
        return [Finding("e.length", claim, None, "silhouette (cosine)", 0, None, note=why)]
    best = max(known, key=lambda row: (row.silhouette or -1) - (row.null_high or 0))
    return [
        Finding(
            "e.length",
            "atoms that fire in long responses lie apart from those of short ones: silhouette above 95 % of "
            "permutations in some layer",
            best.silhouette,
            "silhouette (cosine)",
            best.n_atoms or 0,
            bool((best.silhouette or -1) > max(0.0, best.null_high or 0.0)),
            "long and short responses form clusters",
            "higher",
            None,
            best.null_high,
            "95th percentile of permuted labels",
            "atoms",
            best.site,
        )
    ]


def transfer(causal: Causality | None, tables: Tables | None) -> list[Finding]:
    """Vectors used unchanged on a second distribution of problems: does the sign of their effect hold there?"""
    if causal is None or tables is None:
        return []
    found = []
    for series in causal.of(STEERED):
        b, table = series.behaviour, tables.of(series)
        low, high = table.rows[0].effects[b], table.rows[-1].effects[b]
        swing = high.value - low.value
        random = [tables.of(s) for s in causal.random_beside(series)]
        control = (
            float(np.mean([abs(t.rows[-1].effects[b].value - t.rows[0].effects[b].value) for t in random]))
            if random
            else None
        )
        paper = {
            "reflection": "GPQA 53.2 / 62.8 / 45.4 (vanilla, positive, negative)",
            "backtracking": "GPQA 11.8 / 20.3 / 6.5",
        }
        found.append(
            Finding(
                f"f.{b}",
                f"the vector moves {b} in the same direction on problems with other numbers and operations",
                swing,
                "nats between the extremes",
                table.rows[0].n_traces,
                bool(low.value < 0 < high.value and swing > (control or 0)),
                paper.get(b, ""),
                "higher",
                None,
                control,
                "random directions of equal norm",
                "traces",
                ", ".join(f"{row.dose:+g}: {row.counts[b].value:.2f}" for row in table.rows),
            )
        )
    return found


def _interval(e: Any) -> tuple[float, float] | None:
    return None if e.low is None or e.high is None else (e.low, e.high)
