"""What one generated trace amounts to: a row of counts and verdicts per trace, for any number of doses.

`Outcomes` is the table that `steering_effect` reads. It is a plain table: build it from columns, or let
`countdown_outcome` (the bundled reasoner: everything is checked) and `labelled_outcome` (any model: behaviours counted,
the rest as far as known) make its rows. NaN means "not known" and is left out of sums, never taken for zero.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from overtone.core.errors import DataError
from overtone.data.countdown.grammar import BEHAVIOURS
from overtone.data.countdown.parser import UNKNOWN, read_trace
from overtone.data.countdown.problems import Problem
from overtone.data.countdown.tokens import group_of

COUNT = "count."
COLUMNS = (
    "steps", "tokens", "correct", "finished", "arithmetic_valid", "arithmetic_total", "legal", "unknown",
    "false_success", "kl",
)  # fmt: skip
NOT_KNOWN = float("nan")


@dataclass(frozen=True, eq=False)
class Outcomes:
    """One row per trace, columns of shape (rows,).

    problem: group of the bootstrap; dose: strength in whatever unit the caller uses, the baseline's included; values:
    float64 columns by name: ``count.<behaviour>`` (steps), steps, tokens (of the response), correct and finished (0 or
    1), arithmetic_valid of arithmetic_total (steps that compute), legal and unknown (steps), false_success (1 if it
    ended in a wrong answer), kl (nats per anchor to the unsteered model). A missing column is all NaN.
    """

    problem: tuple[str, ...]
    dose: np.ndarray
    values: Mapping[str, np.ndarray]

    @classmethod
    def from_columns(cls, columns: Any) -> Outcomes:
        """Outcomes from a mapping of columns or a pyarrow Table with `problem`, `dose` and the columns above.

        Raises DataError for missing or unknown columns, columns of different length, negative counts, or no rows.
        """
        data = dict(columns.to_pydict() if hasattr(columns, "to_pydict") else columns)
        lost = [name for name in ("problem", "dose", "steps") if name not in data]
        strange = [n for n in data if n not in ("problem", "dose", *COLUMNS) and not n.startswith(COUNT)]
        if lost or strange or not any(n.startswith(COUNT) for n in data):
            raise DataError(
                f"outcomes need problem, dose, steps and count.<behaviour>; missing: {lost}, unknown: {strange}. "
                f"Known besides: {', '.join(COLUMNS)}."
            )
        problem, dose = tuple(map(str, data.pop("problem"))), np.asarray(data.pop("dose"), dtype=np.float64)
        empty = np.full(len(problem), NOT_KNOWN)
        values = {n: np.array([NOT_KNOWN if v is None else float(v) for v in c]) for n, c in data.items()}
        if not problem or any(len(c) != len(problem) for c in (dose, *values.values())):
            raise DataError("outcomes need at least one row and columns of equal length.")
        if any((c[~np.isnan(c)] < 0).any() for n, c in values.items() if n != "kl"):
            raise DataError("a count of the outcomes is negative.")
        return cls(problem, dose, {**{n: empty for n in COLUMNS}, **values})

    @classmethod
    def from_rows(cls, rows: Sequence[Mapping[str, Any]]) -> Outcomes:
        """Outcomes from one mapping per trace, as `countdown_outcome` returns them; a key that a row lacks is NaN."""
        names = dict.fromkeys(name for row in rows for name in row)
        return cls.from_columns({name: [row.get(name) for row in rows] for name in names})

    @property
    def behaviours(self) -> tuple[str, ...]:
        """The behaviours counted, in column order."""
        return tuple(n.removeprefix(COUNT) for n in self.values if n.startswith(COUNT))

    @property
    def doses(self) -> tuple[float, ...]:
        """The doses present, ascending."""
        return tuple(sorted(set(self.dose.tolist())))

    def at(self, dose: float) -> Outcomes:
        """The rows of one dose. Raises DataError if there are none."""
        kept = np.flatnonzero(self.dose == dose)
        if not len(kept):
            raise DataError(f"no trace has dose {dose:g}; there are doses {', '.join(f'{d:g}' for d in self.doses)}.")
        return Outcomes(
            tuple(self.problem[i] for i in kept), self.dose[kept], {n: c[kept] for n, c in self.values.items()}
        )

    def to_columns(self) -> dict[str, list[Any]]:
        """Plain columns from which `from_columns` makes equal outcomes; NaN becomes None."""
        plain = {n: [None if np.isnan(v) else v for v in c.tolist()] for n, c in self.values.items()}
        return {"problem": list(self.problem), "dose": self.dose.tolist(), **plain}


def countdown_outcome(
    steps: Sequence[str], problem: Problem, *, dose: float, tokens: int, ended: bool = True, kl: float = NOT_KNOWN
) -> dict[str, Any]:
    """The row of one response of the bundled reasoner, every step parsed and checked.

    steps: their texts without blank lines; tokens: length of the response; ended: whether it stopped by itself (a trace
    that was cut off is not finished, whatever its last step says); kl: nats per anchor to the unsteered model.
    """
    report = read_trace(list(steps), problem)
    checked = [holds for holds in report.arithmetic if holds is not None]
    finished = report.finished and ended
    return {
        "problem": group_of(problem),
        "dose": dose,
        **{f"{COUNT}{b}": report.count(b) for b in BEHAVIOURS},
        "steps": len(steps), "tokens": tokens, "finished": finished, "correct": finished and report.correct,
        "false_success": finished and not report.correct, "arithmetic_valid": sum(checked),
        "arithmetic_total": len(checked), "legal": sum(report.legal), "unknown": report.count(UNKNOWN), "kl": kl,
    }  # fmt: skip


def labelled_outcome(
    labels: Sequence[str | None],
    names: Sequence[str],
    *,
    problem: str,
    dose: float,
    tokens: int,
    finished: bool | None = None,
    correct: bool | None = None,
    kl: float = NOT_KNOWN,
) -> dict[str, Any]:
    """The row of one response of any model: steps counted per behaviour, unlabelled steps (None) as unknown.

    names: all behaviours, so that absent ones count 0; finished, correct: None where nobody can tell.
    """
    counts = Counter(labels)
    return {
        "problem": problem, "dose": dose, **{f"{COUNT}{n}": counts[n] for n in names}, "steps": len(labels),
        "tokens": tokens, "finished": finished, "correct": correct, "unknown": counts[None], "kl": kl,
    }  # fmt: skip
