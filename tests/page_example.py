"""A made-up report with every section, of the size and texture of a real one, to look at and to test the page with.

    python tests/page_example.py page.html      # writes the page, to open in a browser

Steps are real sentences of the bundled reasoner's language; every number is invented.
"""

import math
import sys
from dataclasses import replace
from functools import cache
from pathlib import Path
from random import Random

from overtone.core.report import Finding, Report
from overtone.data.countdown import parser
from overtone.data.countdown.policy import Trace, write_trace
from overtone.data.countdown.problems import split_problems
from overtone.discover.page import sections as s

BEHAVIOURS = ("planning", "execution", "reflection", "backtracking", "alternative", "confidence", "conclusion")
SHARES = {
    "planning": 0.13,
    "execution": 0.42,
    "reflection": 0.19,
    "backtracking": 0.09,
    "alternative": 0.05,
    "confidence": 0.05,
    "conclusion": 0.06,
    "unknown": 0.01,
}
STEERED = ("reflection", "backtracking", "alternative", "confidence")
STRENGTHS = (-4.0, -2.0, 0.0, 2.0, 4.0)


def around(value: float, half: float) -> s.Estimate:
    """An estimate with a symmetric interval."""
    return s.Estimate(value, value - half, value + half)


def traces(rng: Random, n: int) -> list[Trace]:
    """Traces written by the generator's policy on held-out problems."""
    problems = split_problems(held_out=True)
    written = (write_trace(rng.choice(problems), rng) for _ in range(2 * n))
    return [trace for trace in written if trace is not None][:n]


def findings() -> list[Finding]:
    """One of each kind: holds, does not hold, not testable; with and without interval and control."""
    return [
        Finding(
            "a.reflection",
            "Reflection is recoverable without labels: AUROC of the best single latent on held-out problems",
            0.963,
            "AUROC",
            1840,
            True,
            "",
            "higher",
            (0.955, 0.971),
            0.81,
            "best PCA axis",
            "steps",
        ),
        Finding(
            "a.backtracking",
            "Backtracking is recoverable without labels: AUROC of the best single latent on held-out problems",
            0.941,
            "AUROC",
            912,
            True,
            "",
            "higher",
            (0.928, 0.953),
            0.77,
            "best PCA axis",
            "steps",
        ),
        Finding(
            "a.wording",
            "The latents carry over to wording never seen in training",
            0.917,
            "mean AUROC",
            2210,
            True,
            "not tested",
            "higher",
            (0.901, 0.931),
            0.72,
            "random decoder",
            "steps",
        ),
        Finding(
            "b",
            "Labelled atoms lie apart: best silhouette over layers",
            0.214,
            "silhouette",
            143,
            True,
            "rises with depth",
            "higher",
            (0.171, 0.262),
            0.037,
            "95th percentile of permuted labels",
            "atoms",
        ),
        Finding(
            "c.reflection",
            "The reflection vector raises and lowers reflection: log ratio of its rate over the extreme doses",
            1.62,
            "nats",
            300,
            True,
            "58.6 to 166.9 steps",
            "higher",
            (1.41, 1.84),
            0.09,
            "largest of 8 random directions",
            "problems",
        ),
        Finding(
            "c.backtracking",
            "The backtracking vector raises and lowers backtracking",
            0.88,
            "nats",
            300,
            True,
            "6.47 to 20.31 steps (GPQA)",
            "higher",
            (0.61, 1.13),
            0.12,
            "largest of 8 random directions",
            "problems",
        ),
        Finding(
            "d",
            "Entropy minimisation over the decoder space finds confidence vectors",
            -0.41,
            "nats",
            512,
            True,
            "reflection 90.5 to 33.8",
            "lower",
            (-0.47, -0.36),
            -0.03,
            "best of 100 random S of equal norm",
            "anchors",
        ),
        Finding(
            "e",
            "Atoms of long and of short responses form separate clusters",
            0.031,
            "silhouette",
            143,
            False,
            "clusters visible",
            "higher",
            (0.008, 0.052),
            0.035,
            "95th percentile of permuted labels",
            "atoms",
        ),
        Finding(
            "f",
            "Vectors transfer to a second task distribution",
            0.71,
            "nats",
            300,
            True,
            "53.2 to 62.8 steps",
            "higher",
            (0.52, 0.9),
            0.08,
            "largest of 8 random directions",
            "problems",
        ),
        Finding(
            "final",
            "A final-layer vector does no more than a logit bias",
            None,
            "nats",
            0,
            None,
            "not tested",
            note="needs the final layer among the chosen layers",
        ),
    ]


def atoms(rng: Random) -> s.AtomMap:
    """Three layers, loose clusters per behaviour, many atoms without a label."""
    centres = {b: (math.cos(i * 0.9) * 3.1, math.sin(i * 0.9) * 2.4) for i, b in enumerate(BEHAVIOURS)}
    points = []
    for layer, spread in ((2, 1.25), (3, 0.85), (4, 0.6)):
        for latent in range(96):
            label = rng.choices([*SHARES, ""], [*SHARES.values(), 0.9])[0].replace("unknown", "")
            x, y = centres[label] if label else (0.0, 0.0)
            wide = spread if label else 2.0
            rate = min(0.5, rng.lognormvariate(-3.6, 0.9))
            points.append(
                s.AtomPoint(
                    x + rng.gauss(0, wide),
                    y + rng.gauss(0, wide),
                    f"residual.{layer}",
                    layer,
                    latent,
                    label,
                    rng.uniform(0.62, 1.0) if label else None,
                    rate,
                    120 + 25 * x + rng.gauss(0, 25),
                    tuple(rng.sample(["wait", "check", "really", "gives", "back", "again", "drop", "sure", "plus"], 3)),
                    rng.randrange(9) if label else None,
                )
            )
    return s.AtomMap("PCA, two axes, 34 % of the variance", tuple(points))


def layers(peak: float) -> tuple[s.LayerSeparability, ...]:
    """A silhouette curve that rises with depth and falls a little at the end."""
    curve = [0.25, 0.5, 0.8, 1.0, 0.92, 0.97]
    return tuple(
        s.LayerSeparability(
            f"residual.{i}",
            i,
            peak * c,
            -0.01,
            -0.042,
            0.036 + 0.002 * i,
            0.001 if peak * c > 0.04 else 0.3,
            143,
            {"reflection / backtracking": peak * c * 0.6, "reflection / execution": peak * c * 1.25},
        )
        for i, c in enumerate(curve)
    )


def aurocs(rng: Random) -> list[s.BehaviourAuroc]:
    """Every behaviour on both splits."""
    rows = []
    for split, loss in (("problems", 0.0), ("wording", 0.05)):
        for behaviour in BEHAVIOURS:
            best = rng.uniform(0.9, 0.99) - loss
            controls = {
                "PCA axes": around(best - rng.uniform(0.05, 0.2), 0.01),
                "random decoder": around(best - rng.uniform(0.1, 0.3), 0.012),
                "shuffled labels": around(rng.uniform(0.49, 0.52), 0.015),
            }
            rows.append(
                s.BehaviourAuroc(
                    behaviour,
                    split,
                    around(best, 0.009),
                    controls,
                    "residual.3",
                    rng.randrange(256),
                    "first_k",
                    min(0.995, best + 0.02),
                    rng.randrange(300, 3000),
                )
            )
    return rows


def point(behaviour: str, dose: float, pull: float) -> s.DosePoint:
    """What a vector of that pull on its behaviour does at a dose."""
    off = {b: 0.25 * math.sin(3 * i + len(behaviour)) for i, b in enumerate(SHARES)}
    change = {b: math.exp(pull * dose * (1.0 if b == behaviour else off[b])) for b in SHARES}
    raw = {b: SHARES[b] * c for b, c in change.items()}
    total = sum(raw.values())
    n_steps = 14 * total
    return s.DosePoint(
        dose,
        {b: around(14 * v, 0.06 * 14 * v + 0.03) for b, v in raw.items()},
        {b: around(v / total, 0.05 * v / total + 0.002) for b, v in raw.items()},
        accuracy=around(0.81 - 0.02 * abs(dose) * abs(pull) * 4 + 0.01 * dose, 0.035),
        tokens=around(13 * n_steps, 6),
        steps=around(n_steps, 0.4),
        validity=around(0.965 - 0.012 * abs(dose) * abs(pull) * 4, 0.008),
        finished=around(0.97, 0.01),
        kl=around(0.04 * dose * dose * abs(pull) * 4, 0.01),
    )


def doses() -> list[s.DoseCurve]:
    """Four vectors with all their controls."""
    curves = []
    for k, behaviour in enumerate(STEERED):
        pull = (0.24, 0.17, 0.2, -0.02)[k]
        series = [
            s.DoseSeries("discovered vector", "steered", tuple(point(behaviour, d, pull) for d in STRENGTHS)),
            s.DoseSeries("difference of means", "rival", tuple(point(behaviour, d, pull * 0.9) for d in STRENGTHS)),
            s.DoseSeries("8 random directions", "random", tuple(point(behaviour, d, 0.012) for d in STRENGTHS)),
            s.DoseSeries("shuffled labels", "shuffled", tuple(point(behaviour, d, -0.02) for d in STRENGTHS)),
            s.DoseSeries("logit bias", "bias", tuple(point(behaviour, d, 0.06) for d in STRENGTHS)),
        ]
        curves.append(
            s.DoseCurve(
                behaviour,
                "residual.3",
                "typical projections",
                tuple(series),
                "add",
                300,
                around(pull * 7.2, 0.2),
                0.09,
                1.0 if pull > 0 else -0.3,
                "" if pull > 0 else "no dose-response: the vector does not steer this behaviour",
            )
        )
    return curves


def trial(rng: Random, behaviour: str, kind: str) -> dict:
    """A candidate on the selection split."""
    low, high = rng.uniform(0.3, 1.0), rng.uniform(2.0, 5.0)
    swing = math.log((high + 0.1) / (low + 0.1))
    numbers = {"low": low, "base": 1.3, "high": high, "swing": swing, "unknown": 0.01, "random": 0.05, "margin": 2.0}
    return {"behaviour": behaviour, "kind": kind, "site": "residual.3", "dose": 0.3, **numbers}


def panel(trace: Trace, role: str, strength: float) -> s.TracePanel:
    """A trace as if it had been steered."""
    edited = role != "unsteered"
    steps = []
    for step in trace.steps:
        valid = parser.arithmetic_holds(parser.parse_step(step.text), trace.problem.target)
        steps.append(s.TraceStep(step.text, step.behaviour, edited, valid))
    return s.TracePanel(role, tuple(steps), strength, trace.correct, True, 13 * len(steps))


def comparisons(written: list[Trace]) -> list[s.TraceComparison]:
    """For two behaviours: little of it, some, a lot."""
    found = []
    for behaviour in ("reflection", "backtracking"):
        ranked = sorted(written, key=lambda t: sum(step.behaviour == behaviour for step in t.steps))
        chosen = (("suppressed", ranked[0], -4.0), ("unsteered", ranked[35], 0.0), ("amplified", ranked[-2], 4.0))
        panels = tuple(panel(trace, role, strength) for role, trace, strength in chosen)
        found.append(s.TraceComparison(behaviour, ranked[35].prompt, panels, "residual.3", "typical projections"))
    return found


def contexts(rng: Random, written: list[Trace], behaviour: str, n: int) -> tuple[s.ContextStep, ...]:
    """Steps of a behaviour with what stands around them."""
    found = []
    for trace in rng.sample(written, len(written)):
        texts = [step.text for step in trace.steps]
        for i, step in enumerate(trace.steps[1:-1], start=1):
            if step.behaviour == behaviour:
                context = s.ContextStep(step.text, texts[i - 1], texts[i + 1], rng.uniform(2, 9), step.behaviour)
                found.append(context)
                break
        if len(found) == n:
            break
    return tuple(sorted(found, key=lambda c: -(c.activation or 0)))


def profile(rng: Random, behaviour: str, purity: float) -> dict[str, float]:
    """Shares that sum to one, with `purity` on the behaviour."""
    others = {b: rng.random() for b in BEHAVIOURS if b != behaviour}
    scale = (1 - purity) / sum(others.values())
    return {behaviour: purity, **{b: v * scale for b, v in others.items()}}


def features(rng: Random, written: list[Trace]) -> list[s.FeatureCard]:
    """Three per behaviour."""
    vocabulary = [
        "wait",
        "check",
        "really",
        "is",
        "am",
        "again",
        "back",
        "drop",
        "undo",
        "instead",
        "maybe",
        "plus",
        "done",
    ]
    cards = []
    for behaviour in BEHAVIOURS:
        for _ in range(3):
            purity = rng.uniform(0.6, 1.0)
            words = rng.sample(vocabulary, 10)
            raised = tuple(s.TokenWeight(w, rng.uniform(0.5, 3)) for w in words[:5])
            lowered = tuple(s.TokenWeight(w, -rng.uniform(0.5, 3)) for w in words[5:])
            cards.append(
                s.FeatureCard(
                    f"residual.{rng.randrange(2, 5)}",
                    rng.randrange(256),
                    f"{behaviour}: {' '.join(words[:2])}",
                    behaviour,
                    purity,
                    rng.uniform(0.01, 0.12),
                    rng.uniform(0.8, 0.99),
                    rng.uniform(80, 220),
                    profile(rng, behaviour, purity),
                    contexts(rng, written, behaviour, 3),
                    raised,
                    lowered,
                )
            )
    return cards


def clusters(rng: Random, written: list[Trace]) -> list[s.ClusterCard]:
    """Five named groups and two without a name."""
    cards = []
    for k, behaviour in enumerate((*BEHAVIOURS[:5], "execution", "confidence")):
        purity = rng.uniform(0.75, 0.97) if k < 5 else rng.uniform(0.35, 0.5)
        size = rng.randrange(6, 40)
        cards.append(
            s.ClusterCard(
                k,
                size,
                "",
                behaviour if k < 5 else "",
                purity,
                rng.uniform(0.02, 0.2),
                rng.uniform(0.2, 0.7),
                tuple(f"residual.3 #{rng.randrange(256)}" for _ in range(min(size, 8))),
                tuple(rng.sample(["leaving", "remain", "keeps", "hold", "check", "right"], 4)),
                profile(rng, behaviour, purity),
                contexts(rng, written, behaviour, 3),
            )
        )
    return cards


def confidence(rng: Random) -> s.ConfidenceResult:
    """A search that worked."""
    return s.ConfidenceResult(
        "residual.3",
        0.84,
        0.43,
        tuple(rng.gauss(0.86, 0.02) for _ in range(100)),
        0.5,
        tuple(0.41 + 0.43 * math.exp(-i / 6) for i in range(40)),
        0.93,
        tuple(
            s.ConfidenceLatent(
                rng.randrange(256),
                1.2 - 0.13 * i,
                rng.choice(["confidence", "conclusion", "execution", ""]),
                ("therefore", "done"),
            )
            for i in range(8)
        ),
        (
            s.EffectRow("reflection steps", around(2.7, 0.2), around(1.1, 0.15), around(2.6, 0.25), "per response"),
            s.EffectRow("backtracking steps", around(1.3, 0.15), around(0.9, 0.1), around(1.3, 0.2), "per response"),
            s.EffectRow("tokens", around(182, 9), around(131, 8), around(180, 10), "per response"),
            s.EffectRow("accuracy", around(0.81, 0.03), around(0.79, 0.03), around(0.81, 0.03), "share"),
        ),
    )


def model(rng: Random) -> s.ModelFacts:
    """The bundled reasoner, roughly."""
    shares = tuple(s.BehaviourShare(b, v * rng.uniform(0.9, 1.1), v) for b, v in SHARES.items())
    return s.ModelFacts(
        "bundled reasoner",
        "3f9a1c77d2e04b15",
        1_934_560,
        6,
        160,
        335,
        1200,
        16_873,
        "parser",
        around(0.812, 0.022),
        around(0.967, 0.004),
        around(0.981, 0.003),
        around(0.973, 0.009),
        around(182.4, 7),
        shares,
    )


def provenance() -> dict:
    """What a run says about itself."""
    return {
        "command": "overtone discover --out runs/demo --resume",
        "seed": 0,
        "settings": {
            "model": "reasoner",
            "layers": [2, 3, 4],
            "n_traces": 1200,
            "dictionary": {"preset": "top_k", "n_latents": 256},
            "strengths": list(STRENGTHS),
        },
        "versions": {"overtone": "0.1.0", "python": "3.11.7", "torch": "2.13.0", "transformers": "5.23.0"},
        "seconds": {"sample traces": 61.2, "activations": 8.1, "dictionaries": 44.9, "doses": 121.3, "report": 1.0},
        "started": "2026-01-31T10:12:40+00:00",
        "sources": {"model": "3f9a1c77d2e04b15", "traces": "a11ce0ffee123456"},
    }


def summary() -> s.Summary:
    """The lead."""
    return s.Summary(
        (
            "A dictionary trained on the states between steps, without any label, found latents for all seven "
            "behaviours of the bundled reasoner.",
            "Turning the reflection vector from -4 to +4 changes the share of reflection steps by a factor of five; "
            "random directions of the same size change it by less than a tenth.",
            "The confidence vector shortens responses by 28 % at nearly the same accuracy. Long and short responses "
            "do not form separate clusters of atoms here, unlike in the paper.",
        ),
        (
            s.KeyNumber("reflection, from -4 to +4", "×5.1", "random directions: at most ×1.09", "reflection"),
            s.KeyNumber("backtracking, from -4 to +4", "×2.4", "random directions: at most ×1.13", "backtracking"),
            s.KeyNumber("best single latent, mean AUROC", "0.95", "PCA axes: 0.81", ""),
            s.KeyNumber("claims that hold", "8 of 9", "one not testable here", ""),
        ),
    )


@cache
def example(seed: int = 0) -> dict:
    """The whole report as plain data; made once, so leave it as it is."""
    rng = Random(seed)
    written = traces(rng, 60)
    sections = s.plain(
        {
            "summary": summary(),
            "atoms": atoms(rng),
            "separability": layers(0.214),
            "auroc": aurocs(rng),
            "doses": doses(),
            "trials": [trial(rng, behaviour, kind) for behaviour in STEERED for kind in ("centroid", "difference")],
            "traces": comparisons(written),
            "features": features(rng, written),
            "clusters": clusters(rng, written),
            "confidence": confidence(rng),
            "length": s.LengthResult(
                164,
                tuple(replace(row, pairs={}) for row in layers(0.034)),
                (
                    s.LengthGroup("short", 600, 97, SHARES),
                    s.LengthGroup("long", 600, 268, {**SHARES, "reflection": 0.27}),
                ),
            ),
            "transfer": [
                s.TransferRow(
                    b, d, around(v, 0.2), around(v * 1.9, 0.3), around(v * 0.6, 0.15), around(v * 1.02, 0.2), n=300
                )
                for d in ("plain numbers up to 30", "sums only")
                for b, v in (("reflection", 2.7), ("backtracking", 1.3))
            ],
            "model": model(rng),
            "dictionaries": [
                s.DictionaryFacts(f"residual.{i}", "top_k", 256, 14000, 0.18 - i * 0.01, 8.0, 0.03, 61 + i)
                for i in (2, 3, 4)
            ],
        }
    )
    return Report("Reasoning vectors of the bundled reasoner", tuple(findings()), provenance(), sections).to_dict()


if __name__ == "__main__":
    from overtone.discover.page.render import render

    Path(sys.argv[1]).write_text(render(example()), encoding="utf-8")
