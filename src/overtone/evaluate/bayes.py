"""How well can the next behaviour be foreseen at all? The bound for anchor `next` on the bundled reasoner's language.

The kind of a step is drawn after the delimiter before it has been read, so no latent, probe or direction at that place
can beat the forecast of the generator itself: the chances of each behaviour given all steps so far, the hidden style
unknown. Its AUROC is the bound that AUROCs at `next` are compared with, instead of 1.
"""

from __future__ import annotations

from collections.abc import Sequence
from random import Random

import numpy as np

from overtone.core.errors import DataError
from overtone.data.countdown.grammar import BEHAVIOURS
from overtone.data.countdown.policy import Trace, write_trace
from overtone.data.countdown.problems import Problem
from overtone.evaluate.intervals import Estimate, Resampling
from overtone.evaluate.separability import auroc_estimate


def next_step_bound(
    problems: Sequence[Problem],
    *,
    rng: Random,
    n_traces: int = 500,
    draws: int = 500,
    behaviours: Sequence[str] = BEHAVIOURS,
    first_step: int = 1,
) -> dict[str, Estimate]:
    """AUROC of the generator's forecast for each behaviour, in [0, 1], with a bootstrap interval over problems.

    n_traces fresh traces are written on `problems`; steps before `first_step` are left out (the first step of every
    trace is the same kind and would flatter the bound). A behaviour without steps is left out.
    Raises DataError if there are no problems.
    """
    if not problems:
        raise DataError("no problems to write traces on. Take split_problems(held_out=True).")
    rows = [
        (str(trace.problem), odds, step.behaviour)
        for trace in _traces(problems, rng, n_traces)
        for odds, step in list(zip(trace.odds, trace.steps, strict=True))[first_step:]
    ]
    groups, kinds = [r[0] for r in rows], np.array([r[2] for r in rows])
    resampling = Resampling.over(groups, rng=np.random.default_rng(rng.getrandbits(63)), draws=draws)
    bounds = {}
    for name in behaviours:
        if 0 < (kinds == name).sum() < len(rows):
            scores = np.array([odds.get(name, 0.0) for _, odds, _ in rows])
            bounds[name] = auroc_estimate(scores, kinds == name, groups, resampling)
    return bounds


def _traces(problems: Sequence[Problem], rng: Random, n_traces: int) -> list[Trace]:
    written: list[Trace] = []
    for _ in range(100 * n_traces):  # a search that ran out of moves is drawn again, within bounds
        if len(written) == n_traces:
            break
        trace = write_trace(rng.choice(problems), rng, forecast=True)
        written += [trace] if trace is not None else []
    return written
