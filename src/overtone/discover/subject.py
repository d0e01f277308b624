"""The subject of a discovery: a model, the prompts it is asked, and what names and grades its steps.

Two kinds share one shape. The bundled reasoner makes its own problems and its parser knows the truth about every step.
Any other model answers a file of prompts; its steps are named by keywords or a judge, and it is graded only where the
prompts carry an `answer`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from random import Random
from typing import TYPE_CHECKING, Any, Protocol

from overtone.core.errors import DataError, SettingError
from overtone.core.seeds import derive
from overtone.data.countdown import grammar, parser, problems
from overtone.data.countdown.tokens import group_of, written_traces
from overtone.data.traces import Delimiters, ReasoningTrace, StepSpan, cut_steps, delimiter_ids
from overtone.evaluate.outcomes import countdown_outcome, labelled_outcome
from overtone.interpret.labels.step_labels import plain_problem

if TYPE_CHECKING:
    from overtone.discover.settings import DiscoverSettings
    from overtone.models.hooked import HookedModel

LONGEST_WRITTEN = 400  # tokens; what the bundled model was trained on
THINK_TAGS = (("<think>", "</think>"), ("<|begin_of_thought|>", "<|end_of_thought|>"))


@dataclass(frozen=True)
class Prompt:
    """One prompt as token ids; group is what splits go by; meta is plain data that grading may need."""

    ids: tuple[int, ...]
    group: str
    meta: dict[str, Any] = field(default_factory=dict)


class Subject(Protocol):
    """A model with its prompts and its grader."""

    model: HookedModel
    delimiters: Delimiters
    think: tuple[int, int] | None
    label_source: str

    @property
    def behaviours(self) -> tuple[str, ...]:
        """The names that steps can have."""
        ...

    @property
    def frame(self) -> frozenset[str]:
        """Behaviours that every trace has once or that carry it: never steered by default."""
        ...

    def prompts(self, split: str, n: int, *, kind: str = "") -> list[Prompt]:
        """n prompts of a split ("train" or "test"), drawn again from the start when there are fewer."""
        ...

    def spans(self, trace: ReasoningTrace) -> list[StepSpan]:
        """The steps of a trace."""
        ...

    def labels(self, trace: ReasoningTrace) -> list[str | None]:
        """The behaviour of every step; None where it has no name."""
        ...

    def kinds(self, trace: ReasoningTrace) -> list[str]:
        """The kind of every step, as finely as this subject can tell: what decisions are compared within."""
        ...

    def outcome(self, trace: ReasoningTrace, dose: float) -> dict[str, Any]:
        """What a response amounts to, as a row of evaluate.outcomes."""
        ...

    def step_texts(self, trace: ReasoningTrace) -> list[str]:
        """The text of every step."""
        ...

    def validity(self, trace: ReasoningTrace) -> list[bool | None]:
        """Whether each step's arithmetic holds; None where it claims nothing or nobody can tell."""
        ...


class _Cutting:
    """What both subjects share: steps are cut at the model's own delimiters."""

    model: HookedModel
    delimiters: Delimiters
    think: tuple[int, int] | None = None

    def spans(self, trace: ReasoningTrace) -> list[StepSpan]:
        return cut_steps(trace, self.delimiters, think=self.think)

    def step_texts(self, trace: ReasoningTrace) -> list[str]:
        tokens = trace.tokens
        return [self.model.tokenizer.decode(list(tokens[s.start : s.end])) for s in self.spans(trace)]


class BundledSubject(_Cutting):
    """The bundled reasoner on Countdown problems: truth for every step."""

    behaviours = grammar.BEHAVIOURS
    frame = frozenset({"planning", "execution", "conclusion"})
    label_source = "parser"

    def __init__(self, model: HookedModel, seed: int) -> None:
        self.model, self.seed = model, seed
        self.delimiters = delimiter_ids(model.tokenizer)
        self.vocabulary = model.tokenizer.get_vocab()
        self._problems: dict[tuple[str, bool], list[problems.Problem]] = {}

    def _pool(self, kind: str, held_out: bool) -> list[problems.Problem]:
        if (kind, held_out) not in self._problems:
            pool = problems.split_problems(kind, held_out=held_out)
            Random(derive(self.seed, kind, held_out)).shuffle(pool)
            self._problems[kind, held_out] = pool
        return self._problems[kind, held_out]

    def prompts(self, split: str, n: int, *, kind: str = "plain") -> list[Prompt]:
        pool, rng = self._pool(kind or "plain", split == "test"), Random(derive(self.seed, "prompts", split, kind))
        return [self._prompt(pool[i % len(pool)], rng) for i in range(n)]

    def _prompt(self, problem: problems.Problem, rng: Random) -> Prompt:
        text = problems.prompt(problem, rng)
        ids = (self.vocabulary["<bos>"], *(self.vocabulary[w] for w in parser.words(text)), self.vocabulary["\n\n"])
        meta = {"prompt": text, "numbers": list(problem.numbers), "target": problem.target, "kind": problem.kind}
        return Prompt(ids, group_of(problem), meta)

    def labels(self, trace: ReasoningTrace) -> list[str | None]:
        found = (parser.parse_step(text).behaviour for text in self.step_texts(trace))
        return [None if name == parser.UNKNOWN else name for name in found]

    def kinds(self, trace: ReasoningTrace) -> list[str]:
        return [parser.parse_step(text).subkind for text in self.step_texts(trace)]

    def outcome(self, trace: ReasoningTrace, dose: float) -> dict[str, Any]:
        return countdown_outcome(
            self.step_texts(trace),
            plain_problem(trace.meta),
            dose=dose,
            tokens=len(trace.response_ids),
            ended=bool(trace.meta["finished"]),
        )

    def validity(self, trace: ReasoningTrace) -> list[bool | None]:
        return list(parser.read_trace(self.step_texts(trace), plain_problem(trace.meta)).arithmetic)

    def written_traces(self, n: int, wording: str, seed: int, *, style: str | None = None) -> list[ReasoningTrace]:
        """n traces written by the generator itself on held-out problems; wording as in policy.write_trace."""
        pool, rng = self._pool("plain", True), Random(derive(seed, "written", wording, style))
        return written_traces(pool, n, self.vocabulary, rng, wording=wording, style=style, longest=LONGEST_WRITTEN)


class PromptSubject(_Cutting):
    """Any causal language model on a file of prompts; steps are named by a rule or a judge."""

    def __init__(self, model: HookedModel, prompts: str, labels: str, seed: int) -> None:
        from overtone.data.texts import read_texts

        self.model, self.seed, self.label_source = model, seed, labels
        if not model.is_causal or model.tokenizer is None:
            raise DataError(
                f"{model.name} cannot write traces: discover needs a causal language model with its tokenizer."
            )
        self.delimiters = delimiter_ids(model.tokenizer)
        self.think = _think_ids(model.tokenizer)
        self.behaviours, self._name = _namer(labels)
        self.frame = frozenset({"execution", "other"})
        texts = read_texts(prompts)
        Random(derive(seed, "order")).shuffle(texts)
        groups = sorted({t.group for t in texts})
        if len(groups) < 4:
            raise DataError(
                f"{prompts} holds {len(groups)} different prompts; discover splits by prompt and needs at least 4."
            )
        Random(derive(seed, "held out")).shuffle(groups)
        test = set(groups[: max(1, len(groups) // 4)])
        self._texts = {
            "test": [t for t in texts if t.group in test],
            "train": [t for t in texts if t.group not in test],
        }

    def prompts(self, split: str, n: int, *, kind: str = "") -> list[Prompt]:
        del kind
        pool = self._texts[split]
        return [self._prompt(pool[i % len(pool)]) for i in range(n)]

    def _prompt(self, text) -> Prompt:
        tokenizer = self.model.tokenizer
        if getattr(tokenizer, "chat_template", None):
            ids = tokenizer.apply_chat_template(
                [{"role": "user", "content": text.text}], add_generation_prompt=True, return_dict=False
            )
        else:
            ids = tokenizer(text.text + "\n\n")["input_ids"]
        return Prompt(tuple(ids), text.group, {"prompt": text.text, **text.meta})

    def labels(self, trace: ReasoningTrace) -> list[str | None]:
        return list(self._name(self.step_texts(trace)))

    def kinds(self, trace: ReasoningTrace) -> list[str]:
        return [str(name) for name in self.labels(trace)]

    def outcome(self, trace: ReasoningTrace, dose: float) -> dict[str, Any]:
        finished, answer = bool(trace.meta.get("finished", True)), trace.meta.get("answer")
        said = self.model.tokenizer.decode(list(trace.response_ids), skip_special_tokens=True)
        correct = None if answer is None else finished and _gives_answer(said, str(answer))
        return labelled_outcome(
            self._name(self.step_texts(trace)),
            self.behaviours,
            problem=trace.group,
            dose=dose,
            tokens=len(trace.response_ids),
            finished=finished,
            correct=correct,
        )

    def validity(self, trace: ReasoningTrace) -> list[bool | None]:
        return [None] * len(self.spans(trace))


def _namer(labels: str) -> tuple[tuple[str, ...], Callable[[list[str]], Sequence[str | None]]]:
    """The names that steps can have, and what names the steps of one trace."""
    from overtone.interpret.labels import judge, keywords

    if labels == "judge":
        asked = judge.from_environment()
        return asked.names, asked.name_steps
    return keywords.SEAL.names, lambda texts: [keywords.SEAL.label(t) for t in texts]


def _gives_answer(text: str, answer: str) -> bool:
    """Whether the last number (or boxed expression) of a text equals an answer, blanks and thousands marks ignored."""
    boxed = re.findall(r"\\boxed\{([^{}]*)\}", text)
    numbers = re.findall(r"-?\d[\d,]*(?:\.\d+)?", text)
    said = boxed[-1] if boxed else numbers[-1] if numbers else ""
    return said.replace(",", "").strip() == answer.replace(",", "").strip()


def _think_ids(tokenizer) -> tuple[int, int] | None:
    vocabulary = tokenizer.get_vocab()
    for opening, closing in THINK_TAGS:
        if opening in vocabulary and closing in vocabulary:
            return vocabulary[opening], vocabulary[closing]
    return None


def make_subject(settings: DiscoverSettings) -> Subject:
    """The subject that settings describe. Raises SettingError for labels that this model cannot have, ModelError,
    DataError for prompts that cannot be used."""
    from overtone.models.hooked import HookedModel
    from overtone.models.reasoner import bundled_reasoner

    if settings.model == "bundled" and not settings.prompts:
        if settings.labels not in ("auto", "truth"):
            raise SettingError(
                f"labels={settings.labels!r}: the bundled problems come with the truth; use auto or truth."
            )
        return BundledSubject(bundled_reasoner(), settings.seed)
    if settings.labels == "truth":
        raise SettingError("labels='truth' exists for the bundled reasoner's own problems only. Use keywords or judge.")
    model = bundled_reasoner() if settings.model == "bundled" else HookedModel.load(settings.model)
    return PromptSubject(
        model, settings.prompts, "keywords" if settings.labels == "auto" else settings.labels, settings.seed
    )
