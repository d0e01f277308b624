"""Labels of steps: the shape that every way of labelling returns, and how labels meet rows of activations."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from overtone.core.batch import Where
from overtone.core.errors import DataError, ShapeError
from overtone.data.traces import ReasoningTrace, StepSpan

Decode = Callable[[list[int]], str]
"""Token ids -> text, such as a tokenizer's `decode`."""


@dataclass(frozen=True)
class StepLabels:
    """One label, or None, for every step of some traces.

    names: all labels that could be given; labels: per trace, one entry per step in step order; failures: steps that got
    no label although one was asked for (they are None in labels); source: what gave the labels, in words; documents:
    `trace.document` of each trace.
    """

    names: tuple[str, ...]
    labels: tuple[tuple[str | None, ...], ...]
    failures: int
    source: str
    documents: tuple[int, ...]

    def __post_init__(self) -> None:
        if len(self.labels) != len(self.documents):
            raise ShapeError(f"labels of {len(self.labels)} traces but {len(self.documents)} documents.")
        strange = {label for trace in self.labels for label in trace} - {*self.names, None}
        if strange:
            raise DataError(f"labels {sorted(map(str, strange))} are not among {', '.join(self.names)}.")

    def flat(self) -> list[str | None]:
        """All labels, trace after trace, step after step."""
        return [label for trace in self.labels for label in trace]

    def at(self, where: Where) -> list[str | None]:
        """The label of each row of activations, by its document and step; None for rows that are not steps.

        Raises DataError for a document that was not labelled or a step it does not have.
        """
        known = dict(zip(self.documents, self.labels, strict=True))
        rows = []
        for document, step in zip(where.document.tolist(), where.step.tolist(), strict=True):
            if document not in known or step >= len(known[document]):
                raise DataError(f"step {step} of document {document} was not labelled. Label the traces you collected.")
            rows.append(known[document][step] if step >= 0 else None)
        return rows

    def counts(self) -> dict[str, int]:
        """Number of steps of each name, zero included."""
        found = Counter(self.flat())
        return {name: found[name] for name in self.names}


def step_texts(
    traces: Sequence[ReasoningTrace], spans: Sequence[Sequence[StepSpan]], decode: Decode
) -> Iterator[list[str]]:
    """Per trace, the texts of its steps without surrounding white space. Raises ShapeError unless there is one list of
    spans per trace."""
    if len(traces) != len(spans):
        raise ShapeError(f"{len(traces)} traces but spans of {len(spans)}. Cut the steps of the same traces.")
    for trace, steps in zip(traces, spans, strict=True):
        tokens = trace.tokens
        yield [decode(list(tokens[s.start : s.end])).strip() for s in steps]


def label_all(
    traces: Sequence[ReasoningTrace],
    names: Sequence[str],
    labels: Sequence[Sequence[str | None]],
    *,
    source: str,
    failures: int | None = None,
) -> StepLabels:
    """StepLabels of traces; failures defaults to the number of steps without a label."""
    rows = tuple(tuple(row) for row in labels)
    missing = sum(label is None for row in rows for label in row)
    documents = tuple(t.document for t in traces)
    return StepLabels(tuple(names), rows, missing if failures is None else failures, source, documents)


def plain_problem(meta: dict[str, Any]) -> Any:
    """The Countdown problem that a trace's meta names: a Problem, or its fields as plain data under "problem", or in
    the meta itself. Raises DataError naming what is missing."""
    from overtone.data.countdown.problems import Problem

    found = meta.get("problem", meta)
    if isinstance(found, Problem):
        return found
    try:
        numbers = sorted(int(n) for n in found["numbers"])
        return Problem((numbers[0], numbers[1], numbers[2]), int(found["target"]), found.get("kind", "plain"))
    except (KeyError, TypeError, ValueError, AttributeError, IndexError):
        raise DataError(
            "a trace's meta has no Countdown problem (numbers, target and kind, such as [4, 6, 9], 30 and 'plain'). "
            "For traces of other models use the keyword rule or a judge."
        ) from None
