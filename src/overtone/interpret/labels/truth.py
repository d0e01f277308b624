"""Labels of the bundled reasoner's steps, read and checked by the parser of its language: truth, not opinion."""

from __future__ import annotations

from collections.abc import Sequence

from overtone.data.countdown.grammar import BEHAVIOURS
from overtone.data.countdown.parser import UNKNOWN, TraceReport, read_trace
from overtone.data.traces import ReasoningTrace, StepSpan
from overtone.interpret.labels.step_labels import Decode, StepLabels, label_all, plain_problem, step_texts

SOURCE = "parser of the bundled reasoner's language"


def read_reports(
    traces: Sequence[ReasoningTrace], spans: Sequence[Sequence[StepSpan]], decode: Decode
) -> list[TraceReport]:
    """Per trace, what the parser says of its steps: behaviour, arithmetic, legality, end and answer.

    decode: token ids -> text. Raises DataError if a trace's meta names no Countdown problem (see `plain_problem`).
    """
    texts = step_texts(traces, spans, decode)
    return [read_trace(steps, plain_problem(trace.meta)) for trace, steps in zip(traces, texts, strict=True)]


def label_steps(traces: Sequence[ReasoningTrace], spans: Sequence[Sequence[StepSpan]], decode: Decode) -> StepLabels:
    """The behaviour of every step, one of grammar.BEHAVIOURS; a step that fits no sentence is None, counted in
    failures.

    Errors as `read_reports`.
    """
    reports = read_reports(traces, spans, decode)
    labels = [[s.behaviour if s.behaviour != UNKNOWN else None for s in report.steps] for report in reports]
    return label_all(traces, BEHAVIOURS, labels, source=SOURCE)
