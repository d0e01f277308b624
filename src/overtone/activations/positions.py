"""Which positions of a trace become rows: every token, one anchor per reasoning step, the last token, a pooled text.

Positions count from the first real token of the trace; padding does not exist here.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

import torch
from jaxtyping import Int
from torch import Tensor

from overtone.core.errors import SettingError, nearest
from overtone.data.traces import ReasoningTrace, StepSpan, cut_steps


@dataclass(frozen=True)
class Picks:
    """The rows that one trace gives.

    positions: (n,) int64, all positions that are read, row after row; lengths: (rows,) how many of them each row takes
    (at least one). token: (rows,) the position a row is reported at; step: (rows,) its step, -1 where rows are no
    steps.
    """

    positions: Int[Tensor, " n"]
    lengths: Int[Tensor, " rows"]
    token: Int[Tensor, " rows"]
    step: Int[Tensor, " rows"]

    def __len__(self) -> int:
        return self.lengths.shape[0]

    @classmethod
    def of(cls, rows: Sequence[tuple[Sequence[int], int, int]]) -> Picks:
        """Picks from (positions, token, step) of each row."""
        parts = (
            [p for positions, _, _ in rows for p in positions],
            [len(positions) for positions, _, _ in rows],
            [token for _, token, _ in rows],
            [step for _, _, step in rows],
        )
        return cls(*(torch.tensor(part, dtype=torch.int64) for part in parts))


class Positions(Protocol):
    """A rule that turns a trace into rows. `reduce` says how a row with several positions is made of them.

    Laws: select depends on the trace alone; two rules with equal `describe()` select equal rows.
    """

    @property
    def reduce(self) -> Literal["mean", "max"]:
        """How the states of a row's positions are joined."""
        ...

    def select(self, trace: ReasoningTrace) -> Picks:
        """The rows of a trace, possibly none."""
        ...

    def describe(self) -> dict[str, Any]:
        """What identifies the rule, as plain data; it becomes part of a store's identity."""
        ...


PARTS = ("all", "prompt", "response")


def _span(trace: ReasoningTrace, part: str) -> range:
    cut = len(trace.prompt_ids)
    return {"all": range(len(trace.tokens)), "prompt": range(cut), "response": range(cut, len(trace.tokens))}[part]


def _check_part(part: str) -> None:
    if part not in PARTS:
        raise SettingError(f"part={part!r}.{nearest(part, PARTS)} Use one of {', '.join(PARTS)}.")


def _digest(ids: Collection[int]) -> str:
    """A short name of a set of ids, which may hold hundreds."""
    return hashlib.sha256(json.dumps(sorted(ids)).encode()).hexdigest()[:16] if ids else ""


def _ordinary(trace: ReasoningTrace, part: str, skip: Collection[int]) -> list[int]:
    tokens = trace.tokens
    return [i for i in _span(trace, part) if tokens[i] not in skip]


@dataclass(frozen=True)
class AllTokens:
    """One row per token.

    skip_special: ids of tokens that give no row (start, end). part: "all", "prompt" or "response".
    """

    skip_special: Collection[int] = ()
    part: str = "all"

    def __post_init__(self) -> None:
        _check_part(self.part)

    @property
    def reduce(self) -> Literal["mean", "max"]:
        """A row is the mean over its positions."""
        return "mean"

    def select(self, trace: ReasoningTrace) -> Picks:
        """Every position of the part, in order, those of skipped ids left out."""
        where = torch.tensor(_ordinary(trace, self.part, self.skip_special), dtype=torch.int64)
        return Picks(where, torch.ones_like(where), where, torch.full_like(where, -1))

    def describe(self) -> dict[str, Any]:
        """Kind, part and a digest of the skipped ids."""
        return {"kind": "tokens", "part": self.part, "skip": _digest(self.skip_special)}


ANCHORS = ("next", "prev", "mean", "first_k")


@dataclass(frozen=True)
class StepAnchor:
    """One row per reasoning step.

    anchor: `next` = the token before the step, whose state decides it (SEAL; steer there); `prev` = the delimiter that
    ends it (RISE's "embeds the step"); `mean` = the mean over its tokens; `first_k` = the mean over its first k tokens
    (Venhoff et al., arXiv 2506.18167). A step with nothing before it has no `next` row. delimiters: from
    `delimiter_ids`; think: as in `cut_steps`. Sources: arXiv 2512.23988, 2504.07986. Raises SettingError.
    """

    anchor: str
    delimiters: frozenset[int] = field(repr=False)
    k: int = 3
    think: tuple[int | None, int | None] | None = None

    def __post_init__(self) -> None:
        if self.anchor not in ANCHORS:
            raise SettingError(
                f"anchor={self.anchor!r}.{nearest(self.anchor, ANCHORS)} Use one of {', '.join(ANCHORS)}."
            )
        if self.k < 1:
            raise SettingError(f"k={self.k}: the first k tokens of a step need k >= 1.")
        if not self.delimiters and not getattr(self.delimiters, "bare", None):
            raise SettingError("delimiters is empty. Take delimiter_ids(tokenizer), or name the ids that end a step.")

    @property
    def reduce(self) -> Literal["mean", "max"]:
        """A row is the mean over its positions."""
        return "mean"

    def select(self, trace: ReasoningTrace) -> Picks:
        """One row per step, reported at the last position that went into it."""
        spans = cut_steps(trace, self.delimiters, think=self.think)
        rows = [(self._positions(s), s.index) for s in spans]
        return Picks.of([(positions, positions[-1], step) for positions, step in rows if positions])

    def _positions(self, span: StepSpan) -> Sequence[int]:
        if self.anchor == "next":
            return [span.before] if span.before >= 0 else []
        if self.anchor == "prev":
            return [span.delimiter]
        end = span.end if self.anchor == "mean" else min(span.end, span.start + self.k)
        return range(span.start, end)

    def describe(self) -> dict[str, Any]:
        """Kind, anchor, k where it counts, the think section and a digest of all sets of ids."""
        sets = [self.delimiters, *(getattr(self.delimiters, name, ()) for name in ("special", "newlines", "bare"))]
        plain: dict[str, Any] = {"kind": "steps", "anchor": self.anchor, "delimiters": [_digest(ids) for ids in sets]}
        if self.anchor == "first_k":
            plain["k"] = self.k
        return plain if self.think is None else {**plain, "think": list(self.think)}


@dataclass(frozen=True)
class LastToken:
    """One row per trace: the last token of a part ("all", "prompt" or "response"), skipped ids left out."""

    part: str = "all"
    skip_special: Collection[int] = ()

    def __post_init__(self) -> None:
        _check_part(self.part)

    @property
    def reduce(self) -> Literal["mean", "max"]:
        """A row is the mean over its positions."""
        return "mean"

    def select(self, trace: ReasoningTrace) -> Picks:
        """The last ordinary position of the part, or no row if there is none."""
        return Picks.of([([i], i, -1) for i in _ordinary(trace, self.part, self.skip_special)[-1:]])

    def describe(self) -> dict[str, Any]:
        """Kind, part and a digest of the skipped ids."""
        return {"kind": "last", "part": self.part, "skip": _digest(self.skip_special)}


@dataclass(frozen=True)
class Pooled:
    """One row per trace: the mean or the coordinate-wise maximum over the tokens of a part, skipped ids left out."""

    reduce: Literal["mean", "max"] = "mean"
    part: str = "all"
    skip_special: Collection[int] = ()

    def __post_init__(self) -> None:
        _check_part(self.part)
        if self.reduce not in ("mean", "max"):
            raise SettingError(f"reduce={self.reduce!r}. Pool with 'mean' or 'max'.")

    def select(self, trace: ReasoningTrace) -> Picks:
        """All ordinary positions of the part as one row, reported at the last of them, or no row if there is none."""
        where = _ordinary(trace, self.part, self.skip_special)
        return Picks.of([(where, where[-1], -1)] if where else [])

    def describe(self) -> dict[str, Any]:
        """Kind, reduction, part and a digest of the skipped ids."""
        return {"kind": "pooled", "reduce": self.reduce, "part": self.part, "skip": _digest(self.skip_special)}
