"""Measure the bundled reasoner on every held-out problem and print the figures of docs/reasoner.md as a table.

    python tools/measure_reasoner.py            # about a minute on two cores

Free-running answers at temperature 1 and greedy, checked step by step by the parser, beside the generator's own traces.
"""

from __future__ import annotations

import numpy as np

from overtone.data.countdown.grammar import BEHAVIOURS
from overtone.data.countdown.parser import read_trace
from overtone.discover.crew import Crew, in_chunks
from overtone.discover.settings import DiscoverSettings, SamplingSettings
from overtone.discover.subject import BundledSubject
from overtone.evaluate.intervals import wilson
from overtone.evaluate.outcomes import countdown_outcome
from overtone.interpret.labels.step_labels import plain_problem
from overtone.models.reasoner import bundled_reasoner


def generated(subject: BundledSubject, temperature: float, kind: str) -> list[dict]:
    settings = DiscoverSettings(sampling=SamplingSettings(temperature=temperature))
    prompts = subject.prompts("test", len(subject._pool(kind, True)), kind=kind)
    with Crew(subject, settings) as crew:
        tasks = in_chunks(kind, prompts, 150)
        return [
            row for task in crew.all(tasks, f"{kind}, temperature {temperature:g}").values() for row in task.outcomes
        ]


def written(subject: BundledSubject) -> list[dict]:
    rows = []
    for trace in subject.written_traces(1000, "seen", 0):
        steps, problem = subject.step_texts(trace), plain_problem(trace.meta)
        assert read_trace(steps, problem).finished
        rows.append(countdown_outcome(steps, problem, dose=0.0, tokens=len(trace.response_ids)))
    return rows


def column(rows: list[dict]) -> dict[str, str]:
    total = {k: float(np.sum([float(r[k]) for r in rows])) for k in rows[0] if k not in ("problem", "dose", "kl")}
    n, solved = len(rows), wilson(int(total["correct"]), len(rows))
    shares = {f"share of {b}": f"{total[f'count.{b}'] / total['steps']:.3f}" for b in BEHAVIOURS}
    return {
        "traces": str(n),
        "solved": f"{solved.value:.3f} ({solved.low:.3f} to {solved.high:.3f})",
        "finished": f"{total['finished'] / n:.3f}",
        "arithmetic claims that hold": f"{total['arithmetic_valid'] / total['arithmetic_total']:.3f}",
        "legal steps": f"{total['legal'] / total['steps']:.3f}",
        "unreadable steps": f"{total['unknown'] / total['steps']:.4f}",
        "tokens per trace": f"{total['tokens'] / n:.1f}",
        "steps per trace": f"{total['steps'] / n:.2f}",
        **shares,
    }


def main() -> None:
    subject = BundledSubject(bundled_reasoner(), seed=0)
    columns = {
        "temperature 1": column(generated(subject, 1.0, "plain")),
        "greedy": column(generated(subject, 0.0, "plain")),
        "`sums`, temperature 1": column(generated(subject, 1.0, "sums")),
        "generator": column(written(subject)),
    }
    print("| held-out problems | " + " | ".join(columns) + " |\n|---|" + "---|" * len(columns))
    for name in next(iter(columns.values())):
        print(f"| {name} | " + " | ".join(c[name] for c in columns.values()) + " |")


if __name__ == "__main__":
    main()
