"""Policy traces as token ids, as the bundled reasoner is trained on them.

A row reads <bos> prompt blank step blank ... last step <eos>, where blank is the one token of a blank line.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from random import Random

from overtone.data.countdown.parser import words
from overtone.data.countdown.policy import Trace, write_trace
from overtone.data.countdown.problems import Problem
from overtone.data.traces import ReasoningTrace


def as_reasoning_trace(trace: Trace, vocabulary: Mapping[str, int], *, document: int = 0) -> ReasoningTrace:
    """One written trace as ids of the bundled tokenizer (vocabulary: its `get_vocab()`).

    Group is the problem; meta holds prompt, style, the behaviour of every step and whether the answer is right.
    """
    blank = vocabulary["\n\n"]
    prompt_ids = (vocabulary["<bos>"], *(vocabulary[w] for w in words(trace.prompt)), blank)
    response: list[int] = []
    for step in trace.steps:
        response += [*(vocabulary[w] for w in words(step.text)), blank]
    response[-1] = vocabulary["<eos>"]
    meta = {
        "prompt": trace.prompt,
        "style": trace.style,
        "behaviours": [s.behaviour for s in trace.steps],
        "finished": True,
        "correct": trace.correct,
    }
    return ReasoningTrace(prompt_ids, tuple(response), document, group_of(trace.problem), meta)


def written_traces(
    pool: Sequence[Problem], n: int, vocabulary: Mapping[str, int], rng: Random, *, wording: str = "seen",
    style: str | None = None, longest: int = 400,
) -> list[ReasoningTrace]:  # fmt: skip
    """n traces that the generator itself writes on problems drawn from a pool; wording and style as in
    `policy.write_trace`. Traces of more than `longest` tokens are drawn again: the bundled model was trained on no
    longer ones. Beside what `as_reasoning_trace` says, meta holds the problem's numbers, target and kind."""
    rows: list[ReasoningTrace] = []
    while len(rows) < n:
        trace = write_trace(rng.choice(pool), rng, wording=wording, style=style)
        if trace is None:
            continue
        row = as_reasoning_trace(trace, vocabulary, document=len(rows))
        if len(row.tokens) > longest:
            continue
        row.meta.update(numbers=list(trace.problem.numbers), target=trace.problem.target, kind=trace.problem.kind)
        rows.append(row)
    return rows


def group_of(problem: Problem) -> str:
    """The key that traces of one problem share, such as "plain 3,7,12 -> 33"; splits never cut it."""
    return f"{problem.kind} {','.join(map(str, problem.numbers))} -> {problem.target}"
