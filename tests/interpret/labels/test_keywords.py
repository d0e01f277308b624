"""SEAL's keyword rule on a fixed list of 20 thoughts, and its law: reflection first, case never."""

import pytest

from overtone.interpret.labels.keywords import NAMES, SEAL, KeywordRule, Kind, label, label_steps

THOUGHTS = [
    ("Wait, that gives 12 and not 14.", "reflection"),
    ("wait a second.", "reflection"),
    ("Waiting for the result, I compute 3 + 4.", "reflection"),  # a prefix, not a word: so the rule says
    ("I can wait with that and add 3 and 4 first.", "execution"),  # in mid-sentence it is no sign
    ("  Wait: let me see.", "reflection"),  # white space before does not count
    ("Let me check the sum again.", "reflection"),
    ("So I VERIFY that 6 x 7 = 42.", "reflection"),
    ("To make sure, I add once more.", "reflection"),
    ("Hold on. Is 9 prime?", "reflection"),
    ("I should think again about this.", "reflection"),
    ("So that's correct.", "reflection"),
    ("Hmm, it's incorrect to divide here.", "reflection"),
    ("The answer 7 seems right.", "reflection"),
    ("Let me verify it in another way.", "reflection"),  # both kinds: reflection has priority
    ("Alternatively, use the product.", "transition"),
    ("We could alternatively use the product.", "execution"),
    ("Is there another approach?", "transition"),
    ("ANOTHER WAY is to go backwards.", "transition"),
    ("I need to think differenly here.", "transition"),  # the authors' spelling
    ("Next, 3 times 4 is 12.", "execution"),
]


@pytest.mark.parametrize(("thought", "wanted"), THOUGHTS)
def test_the_fixed_list_of_twenty(thought, wanted):
    assert label(thought) == wanted


def test_there_are_twenty_and_case_never_matters():
    assert len(THOUGHTS) == 20
    assert (
        [label(t.upper()) for t, _ in THOUGHTS] == [label(t.lower()) for t, _ in THOUGHTS] == [w for _, w in THOUGHTS]
    )


@pytest.mark.parametrize("kind", SEAL.kinds, ids=lambda k: k.name)
def test_every_listed_word_is_seen_where_it_counts(kind):
    assert all(label(f"{start} 12 .") == kind.name for start in kind.starts)
    assert all(label(f"Now {phrase} 12 .") == kind.name for phrase in kind.contains)


def test_traces_are_labelled_step_by_step(spoken):
    traces = [spoken.trace([t for t, _ in THOUGHTS[:4]], 2), spoken.trace(["Alternatively so"], 5)]
    found = label_steps(traces, spoken.spans(traces), spoken.decode)
    assert found.labels == (("reflection", "reflection", "reflection", "execution"), ("transition",))
    assert (found.names, found.failures, found.documents, found.source) == (NAMES, 0, (2, 5), "SEAL's keyword rule")


def test_a_rule_of_ones_own_may_have_other_names(spoken):
    rule = KeywordRule((Kind("doubt", contains=("perhaps",)),), otherwise="rest", source="mine")
    traces = [spoken.trace(["Perhaps so", "so"])]
    found = label_steps(traces, spoken.spans(traces), spoken.decode, rule=rule)
    assert (found.labels, found.names, found.source) == ((("doubt", "rest"),), ("doubt", "rest"), "mine")
