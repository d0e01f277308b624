"""Countdown problems with three numbers: which exist, which can be solved, and which are held out.

Two distributions. `plain`: numbers 1..12 with +, absolute difference and x. `sums`: numbers 1..20 with
+ and absolute difference only, in another prompt wording: the second distribution that tests whether a
direction found on the first one transfers.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import combinations_with_replacement
from random import Random

from overtone.core.errors import SettingError
from overtone.data.countdown.grammar import PROMPTS, natural

LARGEST = 99  # values above are said as "big" and cannot be used further
HELD_OUT_SHARE = 1 / 6
KINDS = {"plain": (12, ("+", "-", "*")), "sums": (20, ("+", "-"))}


@dataclass(frozen=True)
class Problem:
    """Three numbers (sorted) and a target; `kind` names the distribution (`plain` or `sums`)."""

    numbers: tuple[int, int, int]
    target: int
    kind: str = "plain"

    @property
    def operations(self) -> tuple[str, ...]:
        """The operations this problem allows, out of "+", "-" and "*"."""
        return KINDS[self.kind][1]

    @property
    def held_out(self) -> bool:
        """True if training data must not contain this problem (about one in six, by a stable hash)."""
        key = f"{self.kind}|{self.numbers}|{self.target}".encode()
        return int.from_bytes(hashlib.sha256(key).digest()[:8], "big") / 2**64 < HELD_OUT_SHARE


def apply(op: str, x: int, y: int) -> int:
    """Value of x op y, where "-" is the absolute difference; op is "+", "-" or "*"."""
    return x + y if op == "+" else abs(x - y) if op == "-" else x * y


def first_moves(numbers: tuple[int, ...], operations: tuple[str, ...]) -> list[tuple[int, str, int, int]]:
    """All (x, op, y, left) with x >= y drawn from `numbers` whose value is at most 99."""
    rows = []
    for left in range(3):
        x, y = sorted((n for i, n in enumerate(numbers) if i != left), reverse=True)
        rows += [(x, op, y, numbers[left]) for op in operations if apply(op, x, y) <= LARGEST]
    return rows


def _routes(numbers: tuple[int, int, int], operations: tuple[str, ...]) -> dict[int, int]:
    """For every reachable target 1..99, how many first moves lead to it."""
    count: dict[int, int] = {}
    for x, op, y, left in first_moves(numbers, operations):
        value = apply(op, x, y)
        for target in {apply(last, value, left) for last in operations}:
            count[target] = count.get(target, 0) + 1
    return {t: n for t, n in count.items() if 1 <= t <= LARGEST}


def all_problems(kind: str = "plain") -> Iterator[Problem]:
    """Yield every problem of a distribution, in a fixed order: the target is none of the numbers and at
    least two first moves lead to it. Raises SettingError for an unknown kind."""
    if kind not in KINDS:
        raise SettingError(f"kind={kind!r} is not a problem distribution. Use one of {sorted(KINDS)}.")
    largest, operations = KINDS[kind]
    for numbers in combinations_with_replacement(range(1, largest + 1), 3):
        for target, routes in sorted(_routes(numbers, operations).items()):
            if routes >= 2 and target not in numbers:
                yield Problem(numbers, target, kind)


def split_problems(kind: str = "plain", *, held_out: bool) -> list[Problem]:
    """The training (held_out=False) or held-out (True) problems of a distribution, in a fixed order."""
    return [p for p in all_problems(kind) if p.held_out is held_out]


def prompt(problem: Problem, rng: Random | None = None) -> str:
    """The prompt of a problem; `rng` shuffles the numbers (None keeps the order)."""
    numbers = list(problem.numbers)
    if rng is not None:
        rng.shuffle(numbers)
    a, b, c = numbers
    return natural(PROMPTS[problem.kind].format(a=a, b=b, c=c, t=problem.target))


def prompt_numbers(text: str, problem: Problem) -> list[int]:
    """The three numbers in the order in which a prompt of this problem names them."""
    numbers = [int(n) for n in re.findall(r"\d+", text)]
    numbers.remove(problem.target)
    return numbers
