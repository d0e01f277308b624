"""`When`: at which positions an edit applies. A pure function of the token history, so cached equals uncached
generation.

A position is a column of the batch: the state there decides the NEXT token. Clauses that are given must all hold;
exclusion wins over them; padding is never edited. `when.mask(call)` answers for the columns that a pass computes.

The last token of the prompt is special: it belongs to the prompt, and its state decides the first generated token
(when the prompt ends with a delimiter: the first step). With phases={"generation"}, the default, it is NOT edited;
include_prompt_end=True edits it too, subject to the other clauses.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Bool
from torch import Tensor

from overtone.core.errors import SettingError, ShapeError

if TYPE_CHECKING:
    from overtone.models.hooks import Call

Predicate = Callable[["Call"], Tensor]
"""call -> (batch, seen - start) bool; must depend on each column's own past only."""

PHASES = frozenset({"prompt", "generation"})


@dataclass(frozen=True)
class When:
    """Where an edit applies. Every clause that is not None must hold.

    phases: "prompt" (columns of the prompt) and/or "generation" (columns of generated tokens).
    include_prompt_end: the prompt's last column counts as generation too.
    after: token ids; only at a token that is one of them (step boundaries: `delimiter_ids`).
    only_think: (open, close) token ids; only strictly after the last `open` and before any later `close`; None for
    open means from the start, None for close to the end.
    first_generated: only the first n columns of the generation.
    positions: only these positions, counted from each text's first real token.
    predicates: functions of the call; all must hold.
    not_tokens, unless: token ids and predicates that exclude a position whatever else holds.
    Raises SettingError for a clause that is empty (it could never apply: say None for "no condition").
    """

    phases: frozenset[str] | set[str] = frozenset({"generation"})
    include_prompt_end: bool = False
    after: frozenset[int] | None = None
    only_think: tuple[int | None, int | None] | None = None
    first_generated: int | None = None
    positions: frozenset[int] | None = None
    predicates: tuple[Predicate, ...] = ()
    not_tokens: frozenset[int] = frozenset()
    unless: tuple[Predicate, ...] = ()

    def __post_init__(self) -> None:
        for name in ("phases", "after", "positions"):
            given = getattr(self, name)
            if given is not None and len(given) == 0:
                raise SettingError(
                    f"When({name}=empty) could never apply. Leave the clause out, or say where it applies."
                )
        if not set(self.phases) <= PHASES:
            raise SettingError(f"phases={sorted(self.phases)}: use 'prompt', 'generation' or both.")
        if self.first_generated is not None and self.first_generated < 1:
            raise SettingError(
                f"first_generated={self.first_generated} could never apply. Use 1 or more, or leave it out."
            )
        if self.only_think == (None, None):
            raise SettingError("only_think=(None, None) names no mark of the think section. Leave the clause out.")
        for name in ("phases", "after", "positions", "not_tokens"):
            if getattr(self, name) is not None:
                object.__setattr__(self, name, frozenset(getattr(self, name)))

    def mask(self, call: "Call") -> Bool[Tensor, "batch columns"]:
        """True where the edit applies, for the columns from call.start on."""
        tokens = call.tokens[:, call.start :]
        mask = call.real[:, call.start :] & self._in_phase(call)
        if self.after is not None:
            mask = mask & _one_of(tokens, self.after)
        if self.only_think is not None:
            mask = mask & _inside(call, *self.only_think)
        if self.positions is not None:
            mask = mask & _one_of((call.real.cumsum(1) - 1)[:, call.start :], self.positions)
        for predicate in self.predicates:
            mask = mask & _asked(predicate, call)
        if self.not_tokens:
            mask = mask & ~_one_of(tokens, self.not_tokens)
        for predicate in self.unless:
            mask = mask & ~_asked(predicate, call)
        return mask

    def _in_phase(self, call: "Call") -> Bool[Tensor, " columns"]:
        column = torch.arange(call.start, call.tokens.shape[1], device=call.tokens.device)
        first = call.prompt_columns - (1 if self.include_prompt_end else 0)
        generated = column >= first
        if self.first_generated is not None:
            generated = generated & (column < first + self.first_generated)
        if "generation" not in self.phases:
            generated = torch.zeros_like(generated)
        return generated | (column < call.prompt_columns) if "prompt" in self.phases else generated

    def describe(self) -> dict[str, Any]:
        """The clauses as plain data, for provenance (predicates by name)."""
        names = {k: [getattr(p, "__name__", str(p)) for p in getattr(self, k)] for k in ("predicates", "unless")}
        sets = {
            k: sorted(v) if (v := getattr(self, k)) is not None else None
            for k in ("phases", "after", "positions", "not_tokens")
        }
        think = None if self.only_think is None else list(self.only_think)
        return {
            **sets, **names, "only_think": think, "first_generated": self.first_generated,
            "include_prompt_end": self.include_prompt_end,
        }  # fmt: skip


def _one_of(values: Tensor, ids: frozenset[int]) -> Tensor:
    if len(ids) == 1:
        return values == next(iter(ids))
    return torch.isin(values, torch.tensor(sorted(ids), device=values.device))


def _inside(call: "Call", opened_by: int | None, closed_by: int | None) -> Bool[Tensor, "batch columns"]:
    """True strictly after the last opening mark and before any later closing one."""
    column = torch.arange(call.tokens.shape[1], device=call.tokens.device).expand_as(call.tokens)

    def last(mark: int | None, otherwise: int) -> Tensor:
        if mark is None:
            return torch.full_like(column, otherwise)[:, call.start :]
        seen = torch.where((call.tokens == mark) & call.real, column, otherwise)
        return seen.cummax(1).values[:, call.start :]

    opened, closed = last(opened_by, -2 if opened_by is not None else -1), last(closed_by, -2)
    return (opened > closed) & (opened != column[:, call.start :])


def _asked(predicate: Predicate, call: "Call") -> Bool[Tensor, "batch columns"]:
    answer = predicate(call)
    expected = (call.tokens.shape[0], call.tokens.shape[1] - call.start)
    if tuple(answer.shape) != expected or answer.dtype != torch.bool:
        name = getattr(predicate, "__name__", str(predicate))
        raise ShapeError(
            f"predicate {name}: expected bool of shape {expected}, got {answer.dtype} {tuple(answer.shape)}."
        )
    return answer
