"""Contexts: the places in the data where a latent is most active, with the tokens around them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from overtone.core.batch import Where
from overtone.core.errors import DataError, SettingError
from overtone.data.traces import ReasoningTrace, StepSpan
from overtone.interpret.columns import as_columns, same_rows

Surface = Callable[[int], str]
"""Token id -> the text it stands for, leading space included."""


@dataclass(frozen=True)
class Origin:
    """Where a context was found: document, step (-1 if rows are not steps), and the position in the trace's tokens of
    the context's first token."""

    document: int
    step: int
    start: int


@dataclass(frozen=True)
class Context:
    """A stretch of text in which a latent is active.

    tokens: their texts; activations: the latent's value at each, in code units, 0 where no row lies; for rows that are
    steps, the step's value at all tokens of the step; peak: index (into tokens) where |value| is largest, the first
    token of the step for steps; value: the activation there; origin: where it was found.
    """

    tokens: tuple[str, ...]
    activations: tuple[float, ...]
    peak: int
    value: float
    origin: Origin

    @property
    def text(self) -> str:
        """The tokens joined."""
        return "".join(self.tokens)

    @property
    def active_text(self) -> str:
        """The tokens at which the latent is active, joined and stripped: the step's text, where rows are steps."""
        return "".join(t for t, a in zip(self.tokens, self.activations, strict=True) if a).strip()


class ContextFinder:
    """Finds contexts for the latents of one set of codes; sorts nothing until a latent is asked for.

    codes: (rows, latents); where: origin of each row; traces: those the rows come from, by `trace.document`; spans: the
    steps of each trace, by document (empty for rows that are tokens); surface: token id -> text. Raises ShapeError
    if the rows do not match.
    """

    def __init__(
        self,
        codes: Any,
        where: Where,
        traces: Sequence[ReasoningTrace],
        spans: Mapping[int, Sequence[StepSpan]],
        surface: Surface,
    ) -> None:
        self._columns = as_columns(codes)
        same_rows(self._columns, where, "origins")
        self._document, self._token, self._step = (t.numpy() for t in (where.document, where.token, where.step))
        self._traces = {t.document: t for t in traces}
        self._spans = spans
        self._surface = surface

    def top(
        self, latent: int, n: int = 8, *, side: int = 0, around: int = 12, per_document: int = 1
    ) -> tuple[Context, ...]:
        """The n strongest contexts of a latent, strongest first; fewer if it is active in fewer places.

        side: 0 ranks by size of the value, +1 by positive, -1 by negative values only; around: tokens shown on either
        side of the step or token; per_document: at most so many from one trace. Raises SettingError for a latent out of
        range, DataError if a row's trace or step was not given.
        """
        if not 0 <= latent < self._columns.shape[1]:
            raise SettingError(f"latent={latent}; the codes have latents 0 to {self._columns.shape[1] - 1}.")
        start, end = self._columns.indptr[latent : latent + 2]
        rows, values = self._columns.indices[start:end], self._columns.data[start:end]
        strength = np.abs(values) if side == 0 else side * values
        taken: Counter[int] = Counter()
        found: list[Context] = []
        for i in np.argsort(-strength, kind="stable"):
            document = int(self._document[rows[i]])
            if len(found) == n or strength[i] <= 0:
                break
            if taken[document] < per_document:
                taken[document] += 1
                found.append(self._context(int(rows[i]), rows, values, around))
        return tuple(found)

    def _context(self, row: int, rows: np.ndarray, values: np.ndarray, around: int) -> Context:
        document = int(self._document[row])
        if document not in self._traces:
            raise DataError(f"a row comes from document {document}, whose trace was not given. Give all traces.")
        tokens = self._traces[document].tokens
        first, last = self._extent(row)
        start, end = max(0, first - around), min(len(tokens), last + around)
        level = np.zeros(len(tokens))
        for i in np.flatnonzero(self._document[rows] == document):
            a, b = self._extent(int(rows[i]))
            level[a:b] = values[i]
        shown = tuple(self._surface(t) for t in tokens[start:end])
        origin = Origin(document, int(self._step[row]), start)
        return Context(shown, tuple(level[start:end].tolist()), first - start, float(level[first]), origin)

    def _extent(self, row: int) -> tuple[int, int]:
        """First token and end of what a row stands for: its step, or its token."""
        step, token = int(self._step[row]), int(self._token[row])
        if step < 0:
            return token, token + 1
        spans = self._spans.get(int(self._document[row]), ())
        if step >= len(spans):
            raise DataError(f"step {step} of document {int(self._document[row])} has no span. Cut all traces given.")
        return spans[step].start, spans[step].end
