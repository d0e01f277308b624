"""The policy: an honest search whose every choice has the chance that its table says, in styles that differ."""

import re
from collections import Counter
from itertools import product
from pathlib import Path
from random import Random

import pytest

from overtone.core.errors import SettingError
from overtone.data.countdown import policy
from overtone.data.countdown.grammar import BEHAVIOURS, SUBKINDS
from overtone.data.countdown.parser import arithmetic_holds, parse_step
from overtone.data.countdown.policy import STYLE_WEIGHTS, STYLES, next_step_odds, write_trace
from overtone.data.countdown.problems import Problem, apply

SITUATIONS = (
    "begin", "setup", "declared_check", "declared", "plan", "move", "question", "checked_move", "felt_move", "miss",
    "checked_miss", "hit", "checked_hit", "felt_hit", "left",
)  # fmt: skip
PAGE = Path(__file__).parents[3] / "docs" / "reasoner.md"
BEHAVIOUR_OF = {**SUBKINDS, "check": "reflection", "pair": "execution"}


def moves_of(problem):
    """How many first moves and how many last moves seen backwards a problem has, counted from the definition."""
    (a, b, c), t = problem.numbers, problem.target
    forward = sum(apply(op, x, y) <= 99 for x, y in ((a, b), (a, c), (b, c)) for op in problem.operations)
    backward = 0
    for last in problem.numbers:
        needs = {t - last, t + last, last - t}
        if "*" in problem.operations and last > 1 and t % last == 0:
            backward += 1
        backward += sum(0 < need <= 99 for need in needs)
    return {"forward": forward, "backward": backward}


def choices(trace):
    """(situation, modes, choice) of every step, reconstructed from the written sub-kinds alone."""
    left, mode, situation, about = moves_of(trace.problem), "forward", "begin", ""
    for step in trace.steps:
        kind = step.subkind
        choice = {"confirm": "check", "correct": "check", "last_pair": "pair", "last_pair_hit": "pair"}.get(kind, kind)
        yield situation, (mode, left["forward"] > 0, left["backward"] > 0), choice
        if kind in ("plan_forward", "plan_backward", "to_forward", "to_backward"):
            mode, situation = kind.split("_")[1], "plan" if kind.startswith("plan") else "left"
        elif kind in ("first_move", "backward_move"):
            mode = "forward" if kind == "first_move" else "backward"
            left[mode] -= 1
            situation = "move"
        elif kind == "question":
            about, situation = situation, "question"
        elif kind in ("confirm", "correct"):
            situation = "checked_" + ("miss" if about == "hit" and kind == "correct" else about)
        elif kind in ("sure", "unsure"):
            situation = "felt_hit" if "hit" in situation else "felt_move"
        else:
            after = {"setup": "setup", "last_pair": "miss", "last_pair_hit": "hit", "backtrack": "left"}
            said = {"careful": "declared_check", "hasty": "declared_check", "switching": "declared"}
            situation = (after | said | {"staying": "declared", "conclude": "end"})[kind]


def mean(traces, subkinds):
    """Mean number of steps of these sub-kinds per trace."""
    return sum(step.subkind in subkinds for trace in traces for step in trace.steps) / len(traces)


def within(successes, n, chance, sigmas=4.0):
    """Whether a count is what `n` draws with a chance would give, give or take `sigmas` standard deviations."""
    return abs(successes - n * chance) <= sigmas * (n * chance * (1 - chance)) ** 0.5


# --------------------------------------------------------------------------------------------------------------- table
@pytest.mark.parametrize("situation", SITUATIONS)
def test_the_chances_of_the_next_step_sum_to_one_in_every_style_and_mode(situation):
    for style, modes in product(STYLES, product(("forward", "backward"), (True, False), (True, False))):
        odds = next_step_odds(situation, style, modes)
        assert sum(odds.values()) == pytest.approx(1.0) and min(odds.values()) > 0
        assert set(odds) <= set(BEHAVIOUR_OF)


def test_styles_are_independent_traits_and_their_weights_sum_to_one():
    assert set(STYLES) == {v + e + c for v in policy.VERIFY for e in policy.EXPLORE for c in policy.VOICE}
    assert sum(STYLE_WEIGHTS.values()) == pytest.approx(1.0)
    for trait in (*policy.EXPLORE, *policy.VOICE):
        assert sum(w for s, w in STYLE_WEIGHTS.items() if trait in s) == pytest.approx(0.5)


def test_an_approach_without_moves_left_is_never_chosen():
    for style in STYLES:
        assert "to_backward" not in next_step_odds("miss", style, ("forward", True, False))
        assert "backtrack" not in next_step_odds("checked_miss", style, ("forward", False, True))
        assert {"plan_backward", "backward_move"}.isdisjoint(next_step_odds("setup", style, ("forward", True, False)))


def test_the_page_on_the_reasoner_tells_the_rates_that_hold():
    text = PAGE.read_text(encoding="utf-8")
    for level, rates in policy.VERIFY.items():
        told = [float(n) / 100 for n in re.findall(r"(\d+) %", re.search(rf"\| `{level}`.*", text)[0])]
        assert told == pytest.approx(rates)
    for level, rate in policy.EXPLORE.items():
        assert re.search(rf"\| `{level}` .* {100 * rate:.0f} %", text)
    for level, (sure, unsure) in policy.VOICE.items():
        assert re.search(rf"\| `{level}` .* {100 * sure:.0f} %.*unsure in {100 * unsure:.0f} %", text)
    for rate in (policy.SLIP_RATE, policy.FALSE_HIT_RATE, policy.DECLARE_RATE):
        assert f"in {100 * rate:.0f} %" in text.replace("\n", " ")


# -------------------------------------------------------------------------------------------------------------- honesty
def test_claims_are_false_only_where_errors_are_planted_and_corrections_are_always_true(seen):
    false = Counter()
    for trace in seen:
        for step in trace.steps:
            holds = arithmetic_holds(parse_step(step.text), trace.problem.target)
            assert holds is not None or step.subkind not in ("first_move", "confirm", "correct", "last_pair")
            false[step.subkind] += holds is False
    planted = {kind for kind, n in false.items() if n}
    assert planted == {"first_move", "backward_move", "last_pair_hit"}


def test_errors_are_planted_at_the_rates_that_are_told(seen):
    told, kinds = Counter(), Counter()
    for trace in seen:
        for step in trace.steps:
            parsed = parse_step(step.text)
            kinds[step.subkind] += 1
            told[step.subkind] += arithmetic_holds(parsed, trace.problem.target) is False
    moves = ("first_move", "backward_move")
    assert within(sum(told[k] for k in moves), sum(kinds[k] for k in moves), policy.SLIP_RATE, sigmas=3)
    dead_ends = kinds["last_pair"] + told["last_pair_hit"]
    assert within(told["last_pair_hit"], dead_ends, policy.FALSE_HIT_RATE, sigmas=3)


def test_a_check_finds_every_error_and_calls_no_truth_an_error(seen):
    """The claim before a question is false exactly when the answer to it is a correction."""
    checks = Counter()
    for trace in seen:
        for said, asked, found in zip(trace.steps, trace.steps[1:], trace.steps[2:], strict=False):
            if asked.subkind == "question":
                true = arithmetic_holds(parse_step(said.text), trace.problem.target)
                assert found.subkind == ("confirm" if true else "correct"), (said.text, found.text)
                checks[found.subkind] += 1
    assert min(checks["confirm"], checks["correct"]) > 20


def test_an_answer_is_wrong_exactly_if_an_error_on_its_way_was_not_checked(seen):
    """A false success, or a slip carried on. (Two errors may cancel: nothing is said about those.)"""
    for trace in seen:
        last = max(i for i, s in enumerate(trace.steps) if s.subkind in ("first_move", "backward_move"))
        branch = [parse_step(s.text) for s in trace.steps[last:]]
        claims = [arithmetic_holds(p, trace.problem.target) for p in branch]
        unchecked = claims.count(False) - sum(p.subkind == "correct" for p in branch)
        assert unchecked > 1 or trace.correct is (unchecked == 0)


def test_no_move_is_tried_twice_and_every_trace_ends_in_its_only_conclusion(seen):
    for trace in seen:
        kinds = [step.subkind for step in trace.steps]
        assert kinds[0] == "setup" and kinds.count("conclude") == 1 and kinds[-1] == "conclude"
        tried = Counter()
        for step in trace.steps:
            parsed = parse_step(step.text)
            if step.subkind in ("first_move", "backward_move"):
                key = "xyc" if step.subkind == "first_move" else "c"
                tried[step.subkind, parsed.op, *(parsed.holes[k] for k in key)] += 1
        repeats = 3 - len(set(trace.problem.numbers)) + 1  # equal numbers are different places
        assert max(tried.values()) <= repeats


def test_training_text_never_has_held_out_wording_and_held_out_text_has_nothing_else(seen, write):
    assert not any(parse_step(s.text).held_out or s.held_out for t in seen for s in t.steps)
    held = [s for t in write(40, wording="held_out") + write(20, "sums", wording="held_out") for s in t.steps]
    assert all(parse_step(s.text).held_out and s.held_out for s in held)
    both = [s.held_out for t in write(40, wording="all") for s in t.steps]
    assert 0 < sum(both) < len(both)


def test_the_text_of_a_trace_is_its_prompt_and_steps_each_ended_by_a_blank_line(seen):
    parts = seen[0].text.split("\n\n")
    assert parts == [seen[0].prompt, *(s.text for s in seen[0].steps), ""]


def test_equal_seeds_write_equal_traces_with_and_without_forecast(write):
    plain, again, told = write(10, seed=5), write(10, seed=5), write(10, seed=5, forecast=True)
    assert plain == again
    assert [t.text for t in plain] == [t.text for t in told]
    assert all(t.odds == () for t in plain) and all(len(t.odds) == len(t.steps) for t in told)


@pytest.mark.parametrize(("option", "match"), [({"style": "v9"}, "v0e0c0"), ({"wording": "new"}, "'held_out'")])
def test_unknown_styles_and_wordings_are_refused_with_the_known_ones(option, match):
    with pytest.raises(SettingError, match=match):
        write_trace(Problem((3, 7, 10), 20), Random(0), **option)


# ------------------------------------------------------------------------------------------------------------- forecast
def test_the_forecast_is_the_exact_posterior_over_all_styles(forecast):
    """Against brute force: the chance of each style times all its choices so far, from the written text alone."""
    for trace in forecast[:60]:
        weights = dict(STYLE_WEIGHTS)
        for (situation, modes, choice), odds in zip(choices(trace), trace.odds, strict=True):
            expected = dict.fromkeys(odds, 0.0)
            for style, weight in weights.items():
                for kind, p in next_step_odds(situation, style, modes).items():
                    expected[BEHAVIOUR_OF[kind]] += p * weight / sum(weights.values())
            assert odds == pytest.approx(expected, abs=1e-12)
            weights = {s: w * next_step_odds(situation, s, modes).get(choice, 0.0) for s, w in weights.items()}
            assert weights[trace.style] > 0


def test_forecasts_sum_to_one_and_never_rule_out_what_happens(forecast):
    for trace in forecast:
        for step, odds in zip(trace.steps, trace.odds, strict=True):
            assert sum(odds.values()) == pytest.approx(1.0) and odds[step.behaviour] > 0


@pytest.mark.parametrize("behaviour", BEHAVIOURS)
def test_forecasts_are_calibrated(forecast, behaviour):
    """In every range of forecast chances, what was forecast happens that often (the errors are martingale steps)."""
    rows = [
        (o.get(behaviour, 0.0), s.behaviour == behaviour)
        for t in forecast
        for s, o in zip(t.steps, t.odds, strict=True)
    ]
    for low, high in ((0.0, 0.1), (0.1, 0.3), (0.3, 0.6), (0.6, 1.0)):
        inside = [(p, y) for p, y in rows if low < p <= high]
        spread = sum(p * (1 - p) for p, _ in inside) ** 0.5
        assert abs(sum(y - p for p, y in inside)) <= 4 * spread + 1e-9


def test_forecasts_score_better_than_frequencies_and_than_no_memory_of_the_style(forecast):
    """Brier scores over all behaviours: the history tells something about what comes next."""

    def brier(expected, step):
        return sum((expected.get(b, 0.0) - (step.behaviour == b)) ** 2 for b in BEHAVIOURS)

    steps = [step for trace in forecast for step in trace.steps]
    shares = {b: n / len(steps) for b, n in Counter(s.behaviour for s in steps).items()}
    scores = Counter()
    for trace in forecast:
        for step, odds, (situation, modes, _) in zip(trace.steps, trace.odds, choices(trace), strict=True):
            forgetful = Counter()
            for style, weight in STYLE_WEIGHTS.items():
                for kind, p in next_step_odds(situation, style, modes).items():
                    forgetful[BEHAVIOUR_OF[kind]] += weight * p
            scores.update(told=brier(odds, step), forgetful=brier(forgetful, step), shares=brier(shares, step))
    assert scores["told"] < 0.95 * scores["forgetful"] and scores["forgetful"] < 0.5 * scores["shares"]


# --------------------------------------------------------------------------------------------------------------- styles
def test_careful_traces_check_more_are_longer_and_are_right_more_often(write):
    hasty, middle, careful = (write(150, seed=7, style=f"{v}e0c0") for v in policy.VERIFY)
    checks, lengths, solved = zip(
        *(
            (mean(ts, ("question",)), sum(len(t.steps) for t in ts) / len(ts), sum(t.correct for t in ts) / len(ts))
            for ts in (hasty, middle, careful)
        ),
        strict=True,
    )
    assert checks[1] > 4 * checks[0] and checks[2] > 2 * checks[1]
    assert lengths[0] < lengths[2] - 3
    assert solved[2] > solved[0] + 0.08 and solved[2] > 0.94


def test_switching_traces_change_the_approach_where_staying_ones_go_on(write):
    stay, switch = (write(150, seed=8, style=f"v1{e}c0") for e in policy.EXPLORE)
    changes = [mean(ts, ("to_forward", "to_backward")) for ts in (stay, switch)]
    assert changes[1] > 4 * changes[0]
    assert mean(stay, ("backtrack",)) > 2 * mean(switch, ("backtrack",))


def test_voices_differ_in_what_they_feel_and_in_nothing_else(write):
    quiet, loud = (write(200, seed=9, style=f"v1e0{c}") for c in policy.VOICE)
    assert mean(loud, ("sure",)) > 3 * mean(quiet, ("sure",)) and mean(quiet, ("unsure",)) > mean(loud, ("unsure",))
    assert abs(mean(quiet, ("question",)) - mean(loud, ("question",))) < 0.35


def test_a_declared_manner_is_the_manner_of_the_trace_and_some_traces_declare_none(seen):
    said = Counter()
    for trace in seen:
        kinds = {step.subkind for step in trace.steps}
        own = {trait: policy.DECLARED.get(trait) for trait in (trace.style[:2], trace.style[2:4])}
        assert kinds & set(policy.DECLARED.values()) <= set(own.values())
        said.update(trait for trait, manner in own.items() if manner in kinds)
    for trait in policy.DECLARED:
        n = sum(trait in trace.style for trace in seen)
        assert within(said[trait], n, policy.DECLARE_RATE), trait
    assert said["v1"] == 0
