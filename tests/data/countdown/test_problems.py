"""Problems: an independent search finds the same ones; the held-out sixth is stable and apart."""

import hashlib
from collections import Counter
from functools import cache
from itertools import combinations, combinations_with_replacement
from random import Random

import pytest

from overtone.core.errors import SettingError
from overtone.data.countdown.problems import (
    KINDS,
    LARGEST,
    Problem,
    all_problems,
    apply,
    first_moves,
    prompt,
    prompt_numbers,
    split_problems,
)

OPERATIONS = {"+": lambda x, y: x + y, "-": lambda x, y: abs(x - y), "*": lambda x, y: x * y}


@cache
def problems_of(kind):
    return tuple(all_problems(kind))


def moves_that_solve(numbers, operations):
    """By brute force: target -> how many first moves (two places joined by an operation) can be followed by it."""
    count = Counter()
    for i, j in combinations(range(3), 2):
        (left,) = {0, 1, 2} - {i, j}
        for value in (OPERATIONS[op](numbers[i], numbers[j]) for op in operations):
            if value <= 99:
                count.update({OPERATIONS[last](value, numbers[left]) for last in operations})
    return count


@pytest.mark.parametrize("kind", KINDS)
def test_the_problems_are_those_with_two_first_moves_that_solve_them(kind):
    """Sound and complete: a brute-force search over all numbers finds the same. Equal numbers are different places."""
    largest, operations = KINDS[kind]
    found = {
        (numbers, target)
        for numbers in combinations_with_replacement(range(1, largest + 1), 3)
        for target, n in moves_that_solve(numbers, operations).items()
        if n >= 2 and 1 <= target <= 99 and target not in numbers
    }
    assert found == {(p.numbers, p.target) for p in problems_of(kind)}


def test_how_many_there_are():
    """The bundled model was trained on these: a change of the numbers is a change of what it has seen."""
    counts = {kind: Counter(p.held_out for p in problems_of(kind)) for kind in KINDS}
    assert counts == {"plain": {False: 1441, True: 276}, "sums": {False: 4225, True: 835}}


@pytest.mark.parametrize("kind", KINDS)
def test_about_a_sixth_is_held_out_whatever_the_numbers_are(kind):
    problems = problems_of(kind)
    groups = [problems, [p for p in problems if p.numbers[0] <= 4], [p for p in problems if p.target % 2]]
    for group in groups:
        share = sum(p.held_out for p in group) / len(group)
        assert abs(share - 1 / 6) < 4 * (5 / 36 / len(group)) ** 0.5


@pytest.mark.parametrize("kind", KINDS)
def test_the_split_is_a_partition_and_a_pure_function_of_the_problem(kind):
    train, held = split_problems(kind, held_out=False), split_problems(kind, held_out=True)
    assert not set(train) & set(held) and set(train) | set(held) == set(problems_of(kind))
    for p in held[:50] + train[:50]:
        digest = hashlib.sha256(f"{kind}|{p.numbers}|{p.target}".encode()).hexdigest()
        assert p.held_out is (int(digest[:16], 16) * 6 < 2**64)


def test_the_order_is_fixed_and_no_problem_comes_twice():
    problems = problems_of("plain")
    assert problems == tuple(all_problems()) and len(set(problems)) == len(problems)
    assert all(p.numbers == tuple(sorted(p.numbers)) and p.target not in p.numbers for p in problems)


@pytest.mark.parametrize("op", OPERATIONS)
def test_operations_are_those_of_the_task(op):
    assert all(apply(op, x, y) == OPERATIONS[op](x, y) for x in range(1, 21) for y in range(1, 21))


def test_first_moves_stay_within_what_can_be_said():
    moves = first_moves((12, 11, 3), ("+", "-", "*"))
    assert len(moves) == 8 and (12, "*", 11, 3) not in moves  # 132 is "big" and leads nowhere
    for x, op, y, left in moves:
        assert sorted((x, y, left)) == [3, 11, 12] and x >= y and apply(op, x, y) <= LARGEST


@pytest.mark.parametrize("kind", KINDS)
def test_prompts_name_the_numbers_in_any_order_and_can_be_read_back(kind):
    rng, orders = Random(0), set()
    problem = Problem((3, 7, 10), 20, kind)
    for _ in range(60):
        numbers = prompt_numbers(prompt(problem, rng), problem)
        assert sorted(numbers) == [3, 7, 10]
        orders.add(tuple(numbers))
    assert len(orders) == 6
    assert prompt_numbers(prompt(problem), problem) == [3, 7, 10]


def test_prompts_of_the_two_distributions_are_worded_apart():
    assert prompt(Problem((3, 7, 10), 20)) == "use 3, 7 and 10 to make 20."
    assert prompt(Problem((3, 7, 10), 20, "sums")) == "make 20 from 3, 7 and 10 with only plus and minus."


def test_an_unknown_distribution_is_refused_with_the_known_ones():
    with pytest.raises(SettingError, match=r"kind='powers'.*\['plain', 'sums'\]"):
        list(all_problems("powers"))
