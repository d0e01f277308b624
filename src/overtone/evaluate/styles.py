"""Style equivalents: which natural style of the bundled reasoner would check as often as a steered model does.

The generator of the training traces has three verify styles (v0 hasty, v1, v2 careful) whose reflections, tokens and
accuracy are known. A direction that means "check more" should move a model along this curve and nowhere else; the
distance to the curve at equal reflection is its side effect. No real model offers such a ruler.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from random import Random

import numpy as np

from overtone.core.errors import DataError
from overtone.data.countdown.parser import words
from overtone.data.countdown.policy import STYLES, VERIFY, write_trace
from overtone.data.countdown.problems import Problem


@dataclass(frozen=True)
class StylePoint:
    """What traces of one style look like on average: reflection steps, tokens of the response, share of correct
    answers."""

    name: str
    reflection: float
    tokens: float
    accuracy: float


@dataclass(frozen=True)
class StyleEquivalent:
    """Where a measured reflection count lies on the style curve.

    position: 0 is the first point, 1 the second, ...; inside: False if the count lies beyond the curve's ends (then the
    nearest end is used); tokens, accuracy: what the curve has there; excess_tokens, excess_accuracy: measured minus
    that (None where it was not measured).
    """

    position: float
    inside: bool
    tokens: float
    accuracy: float
    excess_tokens: float | None
    excess_accuracy: float | None


def style_equivalent(
    curve: Sequence[StylePoint], reflection: float, *, tokens: float | None = None, accuracy: float | None = None
) -> StyleEquivalent:
    """The point of the curve, linear between its styles, with `reflection` reflection steps per trace.

    Raises DataError unless the curve has two points or more and its reflection rises from each to the next.
    """
    counts = np.array([p.reflection for p in curve])
    if len(curve) < 2 or (np.diff(counts) <= 0).any():
        raise DataError(
            f"the style curve must rise in reflection; it has {counts.tolist()}. Sample more traces per style."
        )
    position = float(np.interp(reflection, counts, np.arange(len(curve))))
    there = [float(np.interp(reflection, counts, [getattr(p, f) for p in curve])) for f in ("tokens", "accuracy")]
    measured = [None if m is None else m - expected for m, expected in zip((tokens, accuracy), there, strict=True)]
    inside = bool(counts[0] <= reflection <= counts[-1])
    return StyleEquivalent(position, inside, there[0], there[1], measured[0], measured[1])


def generator_curve(problems: Sequence[Problem], *, rng: Random, n_traces: int = 600) -> tuple[StylePoint, ...]:
    """The generator's own curve over its verify styles, the other styles mixed evenly; n_traces for each style.

    Tokens are counted as the bundled tokenizer does: words, numbers and signs, and one delimiter (or end) per step.
    Raises DataError if there are no problems.
    """
    if not problems:
        raise DataError("no problems to write traces on. Take split_problems(held_out=True).")
    return tuple(_point(verify, problems, rng, n_traces) for verify in VERIFY)


def _point(verify: str, problems: Sequence[Problem], rng: Random, n_traces: int) -> StylePoint:
    styles, rows = [s for s in STYLES if s.startswith(verify)], []
    for _ in range(100 * n_traces):  # a search that ran out of moves is drawn again, within bounds
        if len(rows) == n_traces:
            break
        trace = write_trace(rng.choice(problems), rng, style=styles[len(rows) % len(styles)])
        if trace is not None:
            n_tokens = sum(1 + len(words(step.text)) for step in trace.steps)
            rows.append((sum(s.behaviour == "reflection" for s in trace.steps), n_tokens, trace.correct))
    reflection, tokens, accuracy = np.mean(rows, axis=0).tolist()
    return StylePoint(verify, reflection, tokens, accuracy)
