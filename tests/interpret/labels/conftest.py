"""Traces whose tokens are words, so that any text can be a trace without a model."""

from collections.abc import Sequence
from typing import Any

import pytest

from overtone.data.traces import Delimiters, ReasoningTrace, StepSpan, cut_steps


class Spoken:
    """Makes traces of given steps: every distinct word is a token, the blank line between steps is token 0."""

    def __init__(self) -> None:
        self.words: list[str] = ["\n\n", "prompt"]

    def trace(self, steps: Sequence[str], document: int = 0, meta: dict[str, Any] | None = None) -> ReasoningTrace:
        ids: list[int] = []
        for step in steps:
            self.words += [w for w in dict.fromkeys(step.split(" ")) if w not in self.words]
            ids += [*(self.words.index(w) for w in step.split(" ")), 0]
        return ReasoningTrace((1, 0), tuple(ids), document, f"g{document}", meta or {})

    def decode(self, ids: list[int]) -> str:
        return " ".join(self.words[i] for i in ids)

    def spans(self, traces: Sequence[ReasoningTrace]) -> list[list[StepSpan]]:
        return [cut_steps(t, Delimiters([0])) for t in traces]


@pytest.fixture
def spoken():
    return Spoken()
