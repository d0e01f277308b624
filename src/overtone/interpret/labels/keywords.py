"""Labels from words: SEAL's rule (arXiv 2504.07986), for any model that thinks aloud in English.

A step is *reflection* if it starts with a prefix of reflection or contains one of its phrases; else *transition* by its
own lists; else *execution*. Case does not matter; the first kind that matches wins. Words are a noisy stand-in for
behaviour: what fires on the words scores well by construction, so say where labels came from (`StepLabels.source`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from overtone.data.traces import ReasoningTrace, StepSpan
from overtone.interpret.labels.step_labels import Decode, StepLabels, label_all, step_texts


@dataclass(frozen=True)
class Kind:
    """One kind of step: how it may start, and what it may contain (compared in lower case)."""

    name: str
    starts: tuple[str, ...] = ()
    contains: tuple[str, ...] = ()

    def matches(self, text: str) -> bool:
        """True if the text, white space around it aside, starts or contains as listed."""
        text = text.strip().lower()
        return text.startswith(tuple(s.lower() for s in self.starts)) or any(c.lower() in text for c in self.contains)


@dataclass(frozen=True)
class KeywordRule:
    """Kinds in order of priority, and the name of every step that matches none."""

    kinds: tuple[Kind, ...]
    otherwise: str
    source: str = "keyword rule"

    @property
    def names(self) -> tuple[str, ...]:
        """All labels this rule can give."""
        return (*(k.name for k in self.kinds), self.otherwise)

    def label(self, text: str) -> str:
        """The label of one step's text."""
        return next((k.name for k in self.kinds if k.matches(text)), self.otherwise)


SEAL = KeywordRule(
    kinds=(
        Kind(
            "reflection",
            starts=("Wait",),
            contains=(
                "verify", "make sure", "hold on", "think again", "'s correct", "'s incorrect", "let me check",
                "seems right",
            ),
        ),
        # "differenly" is spelt so in the authors' list: with the right spelling the rule would be another one.
        Kind(
            "transition",
            starts=("Alternatively",),
            contains=(
                "think differenly", "another way", "another approach", "another method", "another solution",
                "another strategy", "another technique",
            ),
        ),
    ),
    otherwise="execution",
    source="SEAL's keyword rule",
)  # fmt: skip

NAMES = SEAL.names
"""The labels of SEAL's rule: reflection, transition, execution."""


def label(text: str) -> str:
    """The label of one step's text by SEAL's rule, one of NAMES."""
    return SEAL.label(text)


def label_steps(
    traces: Sequence[ReasoningTrace],
    spans: Sequence[Sequence[StepSpan]],
    decode: Decode,
    *,
    rule: KeywordRule = SEAL,
) -> StepLabels:
    """A label for every step by a keyword rule (no failures: every step matches something).

    decode: token ids -> text. Raises ShapeError unless there is one list of spans per trace.
    """
    labels = [[rule.label(text) for text in steps] for steps in step_texts(traces, spans, decode)]
    return label_all(traces, rule.names, labels, source=rule.source)
