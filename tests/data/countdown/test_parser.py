"""Reading back: what the policy wrote is legal and known; what is garbled, wrong or out of place is seen."""

import ast
import operator
import re
from collections import Counter
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from overtone.data.countdown import grammar
from overtone.data.countdown.parser import answer_is_correct, arithmetic_holds, parse_step, read_trace, words
from overtone.data.countdown.problems import Problem

CORES = grammar.all_cores()
HOLES = dict(x=9, y=4, r=5, c=6, a=4, b=7, t=42, m=8, g=41, s=13, d=3, p=36, w=2, o="-", q="*", z=1)
PROBLEM = Problem((4, 6, 9), 30)
SOLUTION = [
    "we want 30 using 9, 4 and 6.",
    "taking 4 away from 9 leaves 5, so 5 and 6 remain.",
    "wait, is 9 minus 4 really 5?",
    "9 minus 4 is 5, yes, so 5 and 6 remain.",
    "i am quite sure about 5 and 6.",
    "from 5 and 6 come 11, 1 and 30, and 30 is there.",
    "that settles it, (9 - 4) * 6.",
]


def texts(trace):
    return [step.text for step in trace.steps]


def flaws(report):
    """How many steps are unknown, how many illegal, how many claims false, and whether the answer is right."""
    return report.count("unknown"), report.legal.count(False), report.arithmetic.count(False), report.correct


def evaluate(node):
    """The value of a parsed arithmetic expression, by Python's own grammar."""
    signs = {ast.Add: operator.add, ast.Sub: operator.sub, ast.Mult: operator.mul}
    if isinstance(node, ast.BinOp):
        return signs[type(node.op)](evaluate(node.left), evaluate(node.right))
    return node.value


# ------------------------------------------------------------------------------------------------ what the policy wrote
def test_written_traces_read_back_without_unknown_or_illegal_steps(seen):
    for trace in seen:
        report = read_trace(texts(trace), trace.problem)
        assert [s.subkind for s in report.steps] == [s.subkind for s in trace.steps]
        assert flaws(report)[:2] == (0, 0) and report.finished and report.correct is trace.correct


@pytest.mark.parametrize("wording", ["held_out", "all"])
def test_other_wordings_read_back_as_well(write, wording):
    for trace in write(50, wording=wording) + write(50, "sums", wording=wording):
        report = read_trace(texts(trace), trace.problem)
        assert flaws(report)[:2] == (0, 0) and report.finished
        assert [s.held_out for s in report.steps] == [s.held_out for s in trace.steps]


def test_counts_of_behaviours_are_those_of_the_written_steps(seen):
    for trace in seen[:100]:
        report, written = read_trace(texts(trace), trace.problem), Counter(s.behaviour for s in trace.steps)
        assert {b: report.count(b) for b in grammar.BEHAVIOURS} == {b: written[b] for b in grammar.BEHAVIOURS}


# -------------------------------------------------------------------------------------------------------- what is wrong
def test_a_sentence_with_a_word_gone_or_two_words_swapped_is_never_taken_for_what_it_was():
    for core in CORES:
        template = core.template.split()
        said = core.template.format(**HOLES).split()
        for i, token in enumerate(template):
            if token.startswith("{"):
                continue
            garbled = [said[:i] + said[i + 1 :]]
            if i + 1 < len(said) and said[i + 1] != said[i]:
                garbled.append([*said[:i], said[i + 1], said[i], *said[i + 2 :]])
            for tokens in garbled:
                step = parse_step(" ".join(tokens))
                assert (step.subkind, step.op, step.about) != (core.subkind, core.op, core.about), tokens


NUMBERS_THAT_MATTER = {
    "setup", "first_move", "backward_move", "last_pair", "last_pair_hit", "backtrack", "to_forward", "to_backward",
    "conclude",
}  # fmt: skip


def test_any_one_number_changed_is_an_unknown_or_illegal_step_a_false_claim_or_a_wrong_answer(seen):
    rng, tried = Random(0), Counter()
    for trace in seen[:250]:
        clean = read_trace(texts(trace), trace.problem)
        for i, step in enumerate(trace.steps):
            if step.subkind not in NUMBERS_THAT_MATTER or clean.arithmetic[i] is False:
                continue
            place = rng.choice(list(re.finditer(r"\d+", step.text)))
            other = rng.choice([n for n in range(1, 100) if n != int(place[0])])
            changed = texts(trace)
            changed[i] = f"{step.text[: place.start()]}{other}{step.text[place.end() :]}"
            assert flaws(read_trace(changed, trace.problem)) != flaws(clean), changed[i]
            tried[step.subkind] += 1
    assert set(tried) == NUMBERS_THAT_MATTER and min(tried.values()) > 20


def test_a_check_that_computes_wrong_is_a_false_claim(seen):
    checks = [(t, s) for t in seen for s in t.steps if s.subkind in ("confirm", "correct")]
    for trace, step in checks[:300]:
        parsed = parse_step(step.text)
        assert arithmetic_holds(parsed, trace.problem.target) is True
        x, y, r = (int(parsed.holes[k]) for k in "xyr")
        if r not in (x, y):
            again = parse_step(re.sub(rf"\b{r}\b", str(r + 1), step.text))
            assert again.subkind == "unknown" or arithmetic_holds(again, trace.problem.target) is False


NEEDED = {"question", "confirm", "correct", "first_move", "backward_move", "last_pair", "last_pair_hit", "backtrack",
          "to_forward", "to_backward"}  # fmt: skip


def test_a_step_that_is_missing_or_said_twice_makes_the_trace_illegal(seen):
    """Moves, pairs, checks and returns need each other; feelings, plans and the setup may be left out."""
    rng = Random(1)
    for trace in seen[:250]:
        i = rng.choice([i for i, s in enumerate(trace.steps) if s.subkind in NEEDED])
        said = texts(trace)
        for changed in (said[:i] + said[i + 1 :], said[: i + 1] + said[i:]):
            assert False in read_trace(changed, trace.problem).legal, (said[i], trace.text)


@pytest.mark.parametrize(("about", "legal"), [("move", True), ("miss", False), ("hit", False), ("lost", False)])
def test_a_check_must_end_with_what_was_checked(about, legal):
    core = next(c for c in CORES if c.op == "-" and c.about == about and c.subkind in ("confirm", "correct"))
    said = core.template.format(x=9, y=4, r=5, c=6, g=30, w=7)
    report = read_trace([*SOLUTION[:3], grammar.natural(said)], PROBLEM)
    assert report.legal == (True, True, True, legal) and report.arithmetic[-1] is True


def test_nothing_is_legal_after_the_conclusion():
    report = read_trace([*SOLUTION, *SOLUTION], PROBLEM)
    assert report.legal == (True,) * len(SOLUTION) + (False,) * len(SOLUTION)


def test_a_solution_is_finished_and_correct_and_its_beginning_is_neither():
    whole, half = read_trace(SOLUTION, PROBLEM), read_trace(SOLUTION[:-1], PROBLEM)
    assert whole.finished and whole.correct and all(whole.legal)
    assert whole.arithmetic == (None, True, None, True, None, True, None)
    assert not half.finished and not half.correct
    assert read_trace([], PROBLEM).steps == () and not read_trace([], PROBLEM).finished


def test_the_steps_of_one_problem_are_illegal_on_another():
    other = Problem((4, 6, 8), 30)
    assert read_trace(SOLUTION, other).legal[:2] == (False, False)
    assert not read_trace(SOLUTION, other).correct


@pytest.mark.parametrize(
    ("text", "holds"),
    [
        ("9 minus 4 is 5, so 5 and 6 remain.", True),
        ("4 minus 9 is 5, so 5 and 6 remain.", False),  # the smaller number first is not how a difference is said
        ("9 times 11 is 99, so 99 and 6 remain.", True),
        ("from 9 and 6 come 15, 3 and 54, and 30 is not there.", True),
        ("from 9 and 6 come 15, 3 and 54, and 54 is not there.", False),  # it is there
        ("from 9 and 6 come 15, 3 and 54, and 30 is there.", False),
        ("from 20 and 6 come 26, 14 and big, and 30 is not there.", True),
        ("from 20 and 4 come 24, 16 and big, and 30 is not there.", False),  # 80 is not big
        ("if 6 is added last, i need 24 from 9 and 4.", True),
        ("if 6 is added last, i need 36 from 9 and 4.", False),
        ("if 6 is subtracted last, i need 36 from 9 and 4.", True),
        ("if 6 multiplies last, i need 5 from 9 and 4.", True),
        ("i am quite sure about 5 and 6.", None),
        ("wait, is 9 minus 4 really 6?", None),
    ],
)
def test_claims_are_checked_by_computing_them(text, holds):
    step = parse_step(text)
    assert step.subkind != "unknown"
    assert arithmetic_holds(step, target=30) is holds


def test_text_that_fits_no_sentence_is_unknown_and_never_an_error():
    report = read_trace(["", "let us eat", "9 9 9", "(4 + ) 3", "Wait, is 9 minus 4 really 5?"], PROBLEM)
    assert [s.behaviour for s in report.steps] == ["unknown"] * 4 + ["reflection"]  # capitals do not matter
    assert report.arithmetic[:4] == (None,) * 4 and report.legal[:4] == (False,) * 4


@settings(max_examples=100, deadline=None)
@given(
    st.lists(
        st.one_of(
            st.sampled_from(SOLUTION),
            st.lists(st.sampled_from(grammar.vocabulary()), max_size=12).map(" ".join),
            st.sampled_from(CORES).flatmap(
                lambda core: st.dictionaries(st.sampled_from(sorted(HOLES)), st.sampled_from(["big", 0, 7, 99, 1234]))
                .map(lambda odd: core.template.format(**{**HOLES, **odd}))
            ),
        ),
        max_size=8,
    )
)  # fmt: skip
def test_whatever_a_model_may_write_gets_a_verdict(steps):
    report = read_trace(steps, PROBLEM)
    assert len(report.steps) == len(report.arithmetic) == len(report.legal) == len(steps)
    assert not report.correct or report.finished


# ---------------------------------------------------------------------------------------------------------- the answer
@settings(max_examples=200, deadline=None)
@given(data=st.data())
def test_answers_are_judged_as_an_independent_evaluator_judges_them(data):
    kind = data.draw(st.sampled_from(["plain", "sums"]))
    numbers = data.draw(st.lists(st.integers(1, 12), min_size=3, max_size=3))
    used = data.draw(st.one_of(st.permutations(numbers), st.lists(st.integers(1, 12), min_size=3, max_size=3)))
    inner, outer = data.draw(st.tuples(st.sampled_from("+-*"), st.sampled_from("+-*")))
    core = data.draw(st.sampled_from([c for c in CORES if c.subkind == "conclude"]))
    shape = re.search(r"\(.*\) \{q\} \{z\}|\{z\} \{q\} \(.*\)", core.template)[0]
    holes = dict(zip("xyz", used, strict=True), o=inner, q=outer)
    value = evaluate(ast.parse(shape.format(**holes), mode="eval").body)
    target = data.draw(st.sampled_from([value, 17]).filter(lambda t: 1 <= t <= 99) | st.just(42))
    problem = Problem(tuple(sorted(numbers)), target, kind)
    right = sorted(used) == sorted(numbers) and value == target and {inner, outer} <= set(problem.operations)
    assert answer_is_correct(core.template.format(**holes, t=target), problem) is right


@pytest.mark.parametrize(
    ("text", "right"),
    [
        ("the answer is (9 - 4) * 6.", True),
        ("so, the answer is 6 * (9 - 4).", True),
        ("the answer is (4 - 9) * 6.", False),  # signed, as written
        ("the answer is (9 - 4) * 6", False),  # no full stop: not a sentence of the language
        ("the answer is (9 - 5) * 6.", False),
        ("therefore (9 - 4) * 6 makes 30.", True),
        ("therefore (9 - 4) * 6 makes 31.", False),  # not what was asked, and not true
        ("(9 - 4) * 6 makes 30.", False),
        ("the answer is 30.", False),
    ],
)
def test_only_a_conclusion_can_be_an_answer(text, right):
    assert answer_is_correct(text, PROBLEM) is right


def test_the_tokens_of_a_sentence_are_integers_words_and_symbols():
    assert words("So, (12 - 4) * 6?\n\n") == ["so", ",", "(", "12", "-", "4", ")", "*", "6", "?"]
