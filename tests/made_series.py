"""Answers of steered arms made by hand: so many steps of each behaviour per trace at each dose, and what depends on it.

Counts of a behaviour are drawn around a planted mean, with the same problem-to-problem differences at every dose.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np

from overtone.discover.causality import STEERED, Causality, Kept, Series
from overtone.evaluate.outcomes import COUNT

N = 60
"""Problems of every arm."""

BASE = {"reflection": 2.0, "backtracking": 1.5, "execution": 6.0}
"""Mean steps per trace without steering."""


def kept(dose: float, means: Mapping[str, float], *, n: int = N, seed: int = 0, **shares: float) -> Kept:
    """An arm. means: behaviour -> mean steps per trace; shares: correct, arithmetic, finished (default 0.9 each) and
    unknown (default 0), each the chance per trace or step."""
    rng = np.random.default_rng(seed)
    chance = {"correct": 0.9, "arithmetic": 0.9, "finished": 0.9, "unknown": 0.0} | shares
    hard, draws = rng.uniform(0.7, 1.3, n), rng.uniform(size=(n, 4))
    rows = []
    for i in range(n):
        counts = {COUNT + b: int(m * hard[i] + rng.uniform()) for b, m in means.items()}
        named = sum(counts.values())
        unknown = round(chance["unknown"] * named)
        rows.append(
            {
                "problem": f"p{i}",
                "dose": dose,
                **counts,
                "steps": named + unknown,
                "tokens": 10 * named,
                "correct": bool(draws[i, 0] < chance["correct"]),
                "finished": bool(draws[i, 1] < chance["finished"]),
                "arithmetic_total": 10,
                "arithmetic_valid": 10 * chance["arithmetic"],
                "unknown": unknown,
                "legal": named,
            }  # fmt: skip
        )
    return Kept(dose, rows, [])


def series(
    role: str,
    target: str,
    factors: Mapping[float, float],
    *,
    name: str = "",
    of: str | None = None,
    others: float = 1.0,
    seed: int = 0,
    n: int = N,
    **shares: float,
) -> Series:
    """A series whose arms have `factors[dose]` times the base steps of the target, and `others` times those of every
    other behaviour. of: the behaviour the series belongs to (default the target)."""
    arms = {}
    for dose, factor in factors.items():
        means = {b: m * (factor if b == target else others) for b, m in BASE.items()}
        arms[dose] = kept(dose, means, n=n, seed=seed, **shares)
    return Series(role, name or f"{role} {target}", target if of is None else of, None, arms)


def causality(*made: Series, **shares: float) -> Causality:
    """All series beside an unsteered arm of the same problems."""
    return Causality((), kept(0.0, BASE, **shares), made)


def steered(target: str, factors: Mapping[float, float], **more: Any) -> Series:
    """The series of a behaviour's own vector."""
    return series(STEERED, target, factors, **more)
