"""The policy that writes training traces: an honest, stochastic search told in sentences.

No look-ahead and no oracle: the only evidence for success is a computed result. Arithmetic slips and
false successes are planted and reflection is the only cure, so that checking costs tokens and buys
accuracy. Three independent styles per trace (how much to verify, how to leave a dead end, how much to voice
confidence), never in the prompt and declared in only some traces, give a model real freedom at every step boundary.

The policy is one table, `next_step_odds`: the writer samples from it, and the best possible forecast of
the next behaviour (the bound of any probe at the anchor before a step) is computed from the same table.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import product
from random import Random

from overtone.core.errors import SettingError
from overtone.data.countdown import grammar
from overtone.data.countdown.problems import LARGEST, Problem, apply, first_moves, prompt, prompt_numbers

SLIP_RATE = 0.06  # a first move or a need is said wrong
FALSE_HIT_RATE = 0.15  # a failing pair is said to reach the goal
VERIFY = {"v0": (0.02, 0.02, 0.04), "v1": (0.20, 0.15, 0.45), "v2": (0.50, 0.25, 0.95)}  # after move, miss, hit
EXPLORE = {"e0": 0.05, "e1": 0.75}  # leave a dead end by switching approach
VOICE = {"c0": (0.03, 0.10), "c1": (0.22, 0.02)}  # say sure, unsure
STYLES = tuple("".join(s) for s in product(VERIFY, EXPLORE, VOICE))
STYLE_WEIGHTS = {s: {"v0": 2, "v1": 1, "v2": 2}[s[:2]] / 20 for s in STYLES}
DECLARE_RATE = 0.6  # a trace says how it will check, and how it will leave dead ends; the rest must be inferred
DECLARED = {"v0": "hasty", "v2": "careful", "e0": "staying", "e1": "switching"}
MOST_STEPS = 40


@dataclass(frozen=True)
class Step:
    """One sentence: its sub-kind (a key of grammar.SUBKINDS), its text, and whether its core is held out."""

    subkind: str
    text: str
    held_out: bool = False

    @property
    def behaviour(self) -> str:
        """The behaviour this step belongs to, one of grammar.BEHAVIOURS."""
        return grammar.SUBKINDS[self.subkind]


@dataclass(frozen=True)
class Trace:
    """A prompt and the steps that answer it, as written by the policy.

    odds[i] (when forecast was asked for) are the chances of each behaviour for steps[i] given all steps
    before it, the hidden style unknown: the Bayes forecast. They sum to one.
    """

    problem: Problem
    prompt: str
    steps: tuple[Step, ...]
    style: str
    correct: bool
    odds: tuple[dict[str, float], ...] = field(repr=False, default=())

    @property
    def text(self) -> str:
        """Prompt and steps, each ended by a blank line."""
        return "".join(part + "\n\n" for part in (self.prompt, *(s.text for s in self.steps)))


def next_step_odds(situation: str, style: str, modes: tuple[str, bool, bool]) -> dict[str, float]:
    """Chances of the next sub-kind in a situation.

    situation: what was just said (`begin`, `setup`, `declared_check`, `declared`, `plan`, `move`, `question`,
    `checked_move`, `felt_move`, `miss`, `checked_miss`, `hit`, `checked_hit`, `felt_hit`, `left`); style: one of
    STYLES; modes: the current approach (`forward` or `backward`) and whether each approach has an untried move left.
    Returns sub-kind -> probability, summing to one; `check` stands for confirm or correct, whichever is
    true, and `pair` for the last pair, hit or miss, whichever is computed or slipped.
    """
    after_move, after_miss, after_hit = VERIFY[style[:2]]
    sure, unsure = VOICE[style[4:6]]
    mode, forward, backward = modes
    move = "first_move" if mode == "forward" else "backward_move"
    switch = "to_backward" if mode == "forward" else "to_forward"
    stay_open, switch_open = (forward, backward) if mode == "forward" else (backward, forward)
    alternative = EXPLORE[style[2:4]] if stay_open and switch_open else float(switch_open)
    leave = {switch: alternative, "backtrack": 1 - alternative}
    start = {"plan_forward": 0.5, "plan_backward": 0.2 * backward, "first_move": 0.2, "backward_move": 0.1 * backward}
    start = _scaled(start, 1 / sum(start.values()))
    feel = {"sure": sure, "unsure": unsure, "pair": 1 - sure - unsure}
    table = {
        "begin": {"setup": 1.0},
        "setup": _declaring(style[:2], _declaring(style[2:4], start)),
        "declared_check": _declaring(style[2:4], start),
        "declared": start,
        "plan": {move: 1.0},
        "move": {"question": after_move, **_scaled(feel, 1 - after_move)},
        "question": {"check": 1.0},
        "checked_move": feel,
        "felt_move": {"pair": 1.0},
        "miss": {"question": after_miss, **_scaled(leave, 1 - after_miss)},
        "checked_miss": leave,
        "hit": {"question": after_hit, **_scaled({"sure": sure, "conclude": 1 - sure}, 1 - after_hit)},
        "checked_hit": {"sure": sure, "conclude": 1 - sure},
        "felt_hit": {"conclude": 1.0},
        "left": {move: 1.0},
    }
    return {k: v for k, v in table[situation].items() if v > 0}


def _declaring(trait: str, otherwise: dict[str, float]) -> dict[str, float]:
    """Say a trait first, at DECLARE_RATE, if it is one that is ever said."""
    if trait not in DECLARED:
        return otherwise
    return {DECLARED[trait]: DECLARE_RATE, **_scaled(otherwise, 1 - DECLARE_RATE)}


def _scaled(odds: dict[str, float], factor: float) -> dict[str, float]:
    return {k: v * factor for k, v in odds.items()}


_BEHAVIOUR_OF = {**grammar.SUBKINDS, "check": "reflection", "pair": "execution"}


class _StyleFilter:
    """Posterior over the hidden styles given the choices made so far, and the forecast that follows."""

    def __init__(self) -> None:
        self.posterior = dict(STYLE_WEIGHTS)

    def forecast(self, situation: str, modes: tuple[str, bool, bool]) -> dict[str, float]:
        chances: dict[str, float] = {}
        for style, weight in self.posterior.items():
            for kind, p in next_step_odds(situation, style, modes).items():
                chances[_BEHAVIOUR_OF[kind]] = chances.get(_BEHAVIOUR_OF[kind], 0.0) + weight * p
        return chances

    def observe(self, situation: str, modes: tuple[str, bool, bool], choice: str) -> None:
        seen = {s: w * next_step_odds(situation, s, modes).get(choice, 0.0) for s, w in self.posterior.items()}
        total = sum(seen.values())
        self.posterior = {s: w / total for s, w in seen.items()}


_CORES: dict[tuple[str, str, str], list[grammar.Core]] = {}
for _core in grammar.all_cores():
    _CORES.setdefault((_core.subkind, _core.op, _core.about), []).append(_core)


class _Writer:
    """Writes one trace. `wording` is "seen" (training), "held_out" or "all"."""

    def __init__(self, problem: Problem, style: str, rng: Random, wording: str, forecast: bool) -> None:
        self.problem, self.style, self.rng, self.wording = problem, style, rng, wording
        self.prompt = prompt(problem, rng)
        self.a, self.b, self.c = prompt_numbers(self.prompt, problem)
        self.trio = {"a": self.a, "b": self.b, "c": self.c, "t": problem.target}
        self.forward = first_moves((self.a, self.b, self.c), problem.operations)
        self.backward = list(_backward_moves((self.a, self.b, self.c), problem))
        rng.shuffle(self.forward)
        rng.shuffle(self.backward)
        self.mode, self.situation = "forward", "begin"
        self.steps: list[Step] = []
        self.odds: list[dict[str, float]] = []
        self.filter = _StyleFilter() if forecast else None

    def modes(self) -> tuple[str, bool, bool]:
        return self.mode, bool(self.forward), bool(self.backward)

    def choose(self) -> str:
        odds = next_step_odds(self.situation, self.style, self.modes())
        choice = self.rng.choices(list(odds), list(odds.values()))[0]
        if self.filter is not None:
            self.odds.append(self.filter.forecast(self.situation, self.modes()))
            self.filter.observe(self.situation, self.modes(), choice)
        return choice

    def say(self, subkind: str, op: str = "", about: str = "", /, **holes: object) -> None:
        options = _CORES[subkind, op, about]
        if self.wording != "all":
            options = [c for c in options if c.held_out is (self.wording == "held_out")]
        if subkind.startswith("last_pair"):
            options = [c for c in options if ("{p}" in c.template) is ("*" in self.problem.operations)]
        core = self.rng.choice(options)
        text = core.template.format(**{**self.trio, **holes})
        if self.rng.random() < grammar.OPENER_RATE:
            weights = grammar.OPENER_WEIGHTS[grammar.SUBKINDS[subkind]]
            text = f"{self.rng.choices(grammar.OPENERS, weights)[0]} {text}"
        self.steps.append(Step(subkind, grammar.natural(text), core.held_out))

    def slipped(self, value: int) -> int:
        options = [value + e for e in (-10, -2, -1, 1, 2, 10) if 0 <= value + e <= LARGEST]
        return self.rng.choice(options) if self.rng.random() < SLIP_RATE else value

    def check(self, fact: tuple[int, str, int], claimed: int, about: str, **holes: int) -> bool:
        """Question a move or a need and confirm or correct it. Returns whether the claim was true."""
        x, op, y = fact
        truth = x // y if op == "/" else apply(op, x, y)
        self.say("question", op, x=x, y=y, r=claimed)
        self.situation = "question"
        self.choose()
        if claimed == truth:
            self.say("confirm", op, about, x=x, y=y, r=truth, **holes)
        else:
            self.say("correct", op, about, x=x, y=y, r=truth, w=claimed, **holes)
        return claimed == truth


def _backward_moves(numbers: tuple[int, int, int], problem: Problem) -> list[tuple[str, int, int, int, int]]:
    """All (last op, last number c, a, b, needed m): m joined with c gives the target."""
    t, rows = problem.target, []
    for i, c in enumerate(numbers):
        a, b = (n for j, n in enumerate(numbers) if j != i)
        rows += [("+", c, a, b, t - c)] if t > c else []
        rows += [("-", c, a, b, t + c)] if t + c <= LARGEST else []
        rows += [("r", c, a, b, c - t)] if c > t else []
        rows += [("*", c, a, b, t // c)] if "*" in problem.operations and c > 1 and t % c == 0 else []
    return rows


def _need_fact(op: str, c: int, t: int) -> tuple[int, str, int]:
    """The computation that gives the needed value, as (x, op, y)."""
    return {"+": (t, "-", c), "-": (t, "+", c), "r": (c, "-", t), "*": (t, "/", c)}[op]


def _forward_branch(w: _Writer) -> bool:
    """Try one first move and its last pair. Returns True if the trace ended."""
    x, op, y, left = w.forward.pop()
    value = w.slipped(apply(op, x, y))
    w.say("first_move", op, "move", x=x, y=y, r=value, c=left)
    w.situation = "move"
    choice = w.choose()
    if choice == "question":
        w.check((x, op, y), value, "move", c=left)
        value = apply(op, x, y)
        w.situation = "checked_move"
        choice = w.choose()
    if choice in ("sure", "unsure"):
        w.say(choice, "", "move", r=value, c=left)
        w.situation = "felt_move"
        w.choose()
    return _last_pair(w, value, left, w.problem.target, lambda o: _expression((x, op, y), o, left, value < left))


def _backward_branch(w: _Writer) -> bool:
    """Try one last move and the pair before it. Returns True if the trace ended."""
    op, c, a, b, need = w.backward.pop()
    said = w.slipped(need)
    w.say("backward_move", op, "need", a=a, b=b, c=c, m=said)
    w.situation = "move"
    choice = w.choose()
    if choice == "question":
        w.check(_need_fact(op, c, w.problem.target), said, "need", a=a, b=b, m=need)
        said = need
        w.situation = "checked_move"
        choice = w.choose()
    if choice in ("sure", "unsure"):
        w.say(choice, "", "need", m=said, a=a, b=b)
        w.situation = "felt_move"
        w.choose()
    x, y = max(a, b), min(a, b)
    return _last_pair(w, x, y, said, lambda o: _expression((x, o, y), "-" if op == "r" else op, c, op == "r"))


def _expression(inner: tuple[int, str, int], outer: str, left: int, flipped: bool) -> tuple[str, dict[str, object]]:
    """Which of grammar.EXPRESSIONS to use and its holes; flipped puts the left-over number first (only for "-")."""
    x, op, y = inner
    return ("1" if outer == "-" and flipped else "0"), {"x": x, "o": op, "y": y, "q": outer, "z": left}


def _last_pair(w: _Writer, x: int, y: int, goal: int, expression) -> bool:
    """List the results of the last pair and act on what they seem to say. Returns True if concluded."""
    operations = w.problem.operations
    values = {op: apply(op, x, y) for op in operations}
    hit = next((op for op in operations if values[op] == goal), None)
    if hit is None and w.rng.random() < FALSE_HIT_RATE:
        hit = w.rng.choice([o for o in operations if values[o] <= LARGEST])
    said = {op: goal if op == hit else v for op, v in values.items()}
    names = {"s": said["+"], "d": said["-"], "p": said.get("*", 0)}
    shown = {k: v if v <= LARGEST else "big" for k, v in names.items()}
    first, second = (x, y) if w.rng.random() < 0.5 else (y, x)
    kind, about = ("last_pair", "miss") if hit is None else ("last_pair_hit", "hit")
    w.say(kind, "", about, x=first, y=second, g=goal, **shown)
    w.situation = about
    choice = w.choose()
    if choice == "question":
        op = hit or w.rng.choice([o for o in operations if values[o] <= LARGEST])
        _check_result(w, (max(x, y), op, min(x, y)), said[op], values[op], about, goal)
        hit = hit if said[op] == values[op] else None
        w.situation = "checked_miss" if hit is None else "checked_hit"
        choice = w.choose()
    if choice == "sure":
        w.say("sure", "", "hit", g=goal)
        w.situation = "felt_hit"
        choice = w.choose()
    if choice == "conclude":
        index, holes = expression(hit)
        w.say("conclude", "", index, **holes)
        return True
    _leave(w, choice)
    return False


def _check_result(w: _Writer, fact: tuple[int, str, int], said: int, truth: int, about: str, goal: int) -> None:
    x, op, y = fact
    w.say("question", op, x=x, y=y, r=said)
    w.situation = "question"
    w.choose()
    if said == truth:
        w.say("confirm", op, about, x=x, y=y, r=said, g=goal)
    else:
        w.say("correct", op, "lost", x=x, y=y, r=truth, w=said, g=goal)


def _leave(w: _Writer, choice: str) -> None:
    if choice in ("to_backward", "to_forward"):
        w.mode = choice.removeprefix("to_")
    w.say(choice)
    w.situation = "left"
    w.choose()


def write_trace(
    problem: Problem, rng: Random, *, style: str | None = None, wording: str = "seen", forecast: bool = False
) -> Trace | None:
    """Write one trace on a problem, or None when the search ran out of moves (the caller draws again).

    style: one of STYLES, or None for a draw by STYLE_WEIGHTS. wording: "seen" uses training sentences only,
    "held_out" only the cores kept apart for evaluation, "all" both. forecast: fill Trace.odds. Raises SettingError
    for another style or wording.
    """
    if wording not in ("seen", "held_out", "all"):
        raise SettingError(f"wording={wording!r}. Use 'seen', 'held_out' or 'all'.")
    if style is not None and style not in STYLES:
        raise SettingError(f"style={style!r}. Use one of {', '.join(STYLES)}, or None.")
    style = style or rng.choices(list(STYLE_WEIGHTS), list(STYLE_WEIGHTS.values()))[0]
    w = _Writer(problem, style, rng, wording, forecast)
    w.choose()
    w.say("setup")
    w.situation = "setup"
    choice = w.choose()
    for declared, after in ((("careful", "hasty"), "declared_check"), (("switching", "staying"), "declared")):
        if choice in declared:
            w.say(choice)
            w.situation = after
            choice = w.choose()
    w.mode = "backward" if "backward" in choice else "forward"
    if choice.startswith("plan"):
        w.say(choice)
        w.situation = "plan"
        w.choose()
    while len(w.steps) < MOST_STEPS:
        if not (w.forward if w.mode == "forward" else w.backward):
            return None
        if (_forward_branch if w.mode == "forward" else _backward_branch)(w):
            return Trace(
                problem, w.prompt, tuple(w.steps), w.style, _is_solved(w.steps[-1].text, problem), tuple(w.odds)
            )
    return None


def _is_solved(text: str, problem: Problem) -> bool:
    from overtone.data.countdown.parser import answer_is_correct

    return answer_is_correct(text, problem)
