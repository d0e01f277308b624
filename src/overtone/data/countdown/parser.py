"""Reads free-running text back: what kind each step is, whether its arithmetic is right, whether it is
legal where it stands, and whether the final answer solves the problem.

Text that fits no sentence of the grammar is `unknown`: counted, never guessed.
"""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass

from overtone.data.countdown import grammar
from overtone.data.countdown.problems import LARGEST, Problem, apply

UNKNOWN = "unknown"
_TOKEN = re.compile(r"\d+|[a-z]+|[^\sa-z\d]")
_SLOT = re.compile(r"\{(\w+)\}")
_SIGNS = {"+", "-", "*"}


@dataclass(frozen=True)
class ParsedStep:
    """What one sentence says. subkind is a key of grammar.SUBKINDS or "unknown"; holes maps a slot of
    the template to its value (integer, "big", or an operation sign); op and about as in grammar.Core."""

    subkind: str
    holes: dict[str, int | str]
    op: str = ""
    about: str = ""
    held_out: bool = False

    @property
    def behaviour(self) -> str:
        """One of grammar.BEHAVIOURS, or "unknown"."""
        return grammar.SUBKINDS.get(self.subkind, UNKNOWN)


@dataclass(frozen=True)
class TraceReport:
    """Verdict on one trace: parsed steps; per step whether its arithmetic holds (None if it makes no claim)
    and whether it is legal where it stands; whether it ended in a conclusion and whether that is right."""

    steps: tuple[ParsedStep, ...]
    arithmetic: tuple[bool | None, ...]
    legal: tuple[bool, ...]
    finished: bool
    correct: bool

    def count(self, behaviour: str) -> int:
        """Number of steps of a behaviour (or of "unknown")."""
        return sum(s.behaviour == behaviour for s in self.steps)


def words(text: str) -> list[str]:
    """The tokens of a sentence: integers, words and symbols."""
    return _TOKEN.findall(text.lower())


def _signature(token: str) -> str:
    if token.isdigit() or token == "big":
        return "#"
    return "@" if token in _SIGNS else token


def _template_entry(core: grammar.Core) -> tuple[tuple[str, ...], list[str]]:
    slots, signature = [], []
    for token in core.template.split():
        slot = _SLOT.fullmatch(token)
        if slot:
            slots.append(slot.group(1))
            signature.append("@" if slot.group(1) in ("o", "q") else "#")
        else:
            signature.append(_signature(token))
    return tuple(signature), slots


_BY_SIGNATURE: dict[tuple[str, ...], tuple[grammar.Core, list[str]]] = {}
for _core in grammar.all_cores():
    _key, _slots = _template_entry(_core)
    _BY_SIGNATURE.setdefault(_key, (_core, _slots))
_OPENERS = sorted((tuple(o.split()) for o in grammar.OPENERS), key=len, reverse=True)


def parse_step(text: str) -> ParsedStep:
    """What a sentence says; subkind "unknown" if no sentence of the grammar fits."""
    tokens = words(text)
    for opener in _OPENERS:
        if tuple(tokens[: len(opener)]) == opener:
            tokens = tokens[len(opener) :]
            break
    entry = _BY_SIGNATURE.get(tuple(_signature(t) for t in tokens))
    if entry is None:
        return ParsedStep(UNKNOWN, {})
    core, slots = entry
    values = [int(t) if t.isdigit() else t for t in tokens if _signature(t) in ("#", "@")]
    holes: dict[str, int | str] = {}
    for slot, value in zip(slots, values, strict=True):
        if holes.setdefault(slot, value) != value:  # a value that must be repeated is not
            return ParsedStep(UNKNOWN, {})
    return ParsedStep(core.subkind, holes, core.op, core.about, core.held_out)


def _number(value: int | str) -> int:
    return LARGEST + 1 if value == "big" else int(value)


def _fact_holds(op: str, x: int, y: int, r: int) -> bool:
    return x == r * y if op == "/" else (x - y == r if op == "-" else apply(op, x, y) == r)


def arithmetic_holds(step: ParsedStep, target: int) -> bool | None:
    """Whether what a step computes is right; None for steps that compute nothing (questions included)."""
    h = {k: _number(v) for k, v in step.holes.items() if k not in ("o", "q")}
    if step.subkind in ("first_move", "confirm", "correct"):
        return _fact_holds(step.op, h["x"], h["y"], h["r"])
    if step.subkind in ("last_pair", "last_pair_hit"):
        said = [h["s"], h["d"], *([h["p"]] if "p" in h else [])]
        true = [min(apply(op, h["x"], h["y"]), LARGEST + 1) for op in ("+", "-", "*")][: len(said)]
        return said == true and (h["g"] in true) == (step.subkind == "last_pair_hit")
    if step.subkind == "backward_move":
        m, c = h["m"], h["c"]
        return {"+": m + c, "-": m - c, "r": c - m, "*": m * c}[step.op] == target
    return None


def answer_is_correct(text: str, problem: Problem) -> bool:
    """Whether a conclusion's expression uses exactly the problem's numbers and only its operations, and has the target
    as its value (and as the value it is said to have, where one is said)."""
    step = parse_step(text)
    h = step.holes
    if step.subkind != "conclude" or h.get("t", problem.target) != problem.target:
        return False
    x, y, z = (int(h[k]) if h[k] != "big" else -1 for k in ("x", "y", "z"))
    if Counter((x, y, z)) != Counter(problem.numbers) or not {h["o"], h["q"]} <= set(problem.operations):
        return False
    inner = x - y if h["o"] == "-" else apply(str(h["o"]), x, y)
    left, right = (z, inner) if step.about == "1" else (inner, z)
    return (left - right if h["q"] == "-" else apply(str(h["q"]), left, right)) == problem.target


class _Board:
    """What may be said next: the situation of the search, kept while reading a trace."""

    def __init__(self, problem: Problem) -> None:
        self.problem = problem
        self.pair: tuple[int, int] | None = None  # numbers in hand before the last pair is listed
        self.goal: int | None = None
        self.state = "start"

    def _trio(self, h: dict) -> bool:
        same = Counter(h[k] for k in ("a", "b", "c") if k in h) == Counter(self.problem.numbers)
        return same and h.get("t", self.problem.target) == self.problem.target

    def accepts(self, step: ParsedStep) -> bool:
        """Whether a step is legal here; then the board moves on (an illegal step changes nothing it can avoid)."""
        if self.state == "ended" or step.subkind == UNKNOWN:
            return False
        return getattr(self, f"_{step.behaviour}")(step, step.holes)

    def _planning(self, step: ParsedStep, h: dict) -> bool:
        ok = self.state in ("start", "open") and h.get("t", self.problem.target) == self.problem.target
        self.state = "open"
        return ok and (step.subkind != "setup" or self._trio(h))

    def _execution(self, step: ParsedStep, h: dict) -> bool:
        if step.subkind.startswith("last_pair"):
            legal = self.state == "moved" and self.pair is not None and Counter((h["x"], h["y"])) == Counter(self.pair)
            legal = legal and h["g"] == self.goal
            self.state = "hit" if step.subkind == "last_pair_hit" else "missed"
            self.pair, self.goal = (_number(h["x"]), _number(h["y"])), _number(h["g"])
            return legal
        legal, self.state = self.state == "open", "moved"
        if step.subkind == "first_move":
            self.pair, self.goal = (_number(h["r"]), _number(h["c"])), self.problem.target
            return legal and Counter((h["x"], h["y"], h["c"])) == Counter(self.problem.numbers)
        self.pair, self.goal = (_number(h["a"]), _number(h["b"])), _number(h["m"])
        return legal and self._trio({k: h[k] for k in ("a", "b", "c")})

    def _reflection(self, step: ParsedStep, h: dict) -> bool:
        asked = self.state.startswith("asked_")
        before = self.state.removeprefix("asked_")
        if step.subkind == "question":
            self.state = f"asked_{before}"
            return not asked and before in ("moved", "hit", "missed")
        self.state = before
        if step.about == "move":
            self.pair = (_number(h["r"]), _number(h["c"]))
        elif step.about == "need":
            self.pair, self.goal = (_number(h["a"]), _number(h["b"])), _number(h["m"])
        elif step.about == "lost":
            self.state = "missed"
        wanted = {"move": "moved", "need": "moved", "miss": "missed", "hit": "hit", "lost": "hit"}[step.about]
        return asked and before == wanted

    def _confidence(self, step: ParsedStep, h: dict) -> bool:
        return self.state == ("hit" if step.about == "hit" else "moved")

    def _backtracking(self, step: ParsedStep, h: dict) -> bool:
        legal, self.state = self.state == "missed", "open"
        return legal and self._trio(h)

    _alternative = _backtracking

    def _conclusion(self, step: ParsedStep, h: dict) -> bool:
        legal, self.state = self.state == "hit", "ended"
        legal = legal and h.get("t", self.problem.target) == self.problem.target
        return legal and Counter((h["x"], h["y"], h["z"])) == Counter(self.problem.numbers)


def read_trace(steps: list[str], problem: Problem) -> TraceReport:
    """Parse and check the steps of one response (texts without the blank lines between them)."""
    board = _Board(problem)
    parsed = [parse_step(s) for s in steps]
    legal = tuple(board.accepts(p) for p in parsed)
    arithmetic = tuple(arithmetic_holds(p, problem.target) for p in parsed)
    finished = bool(parsed) and parsed[-1].subkind == "conclude"
    return TraceReport(tuple(parsed), arithmetic, legal, finished, finished and answer_is_correct(steps[-1], problem))
