"""Distinctive words: frequent differences win over rare accidents, common words never do."""

import pytest

from overtone.core.errors import DataError
from overtone.interpret.words import count_words, distinctive_words, words_of

SAID = ["so the sum of 3 and 4 is 7"] * 40 + ["the gap is 2"] * 20
OTHERS = count_words(SAID)


def test_what_the_texts_say_and_the_others_do_not_comes_first():
    texts = ["wait , is the sum right ?"] * 10 + ["wait , let me check the gap"] * 10
    found = [w.word for w in distinctive_words(texts, OTHERS, n=3)]
    assert found[0] == "wait" and "the" not in found and "sum" not in found


def test_the_score_is_the_published_formula():
    from math import log, sqrt

    found = distinctive_words(["a a b"], ["b b b"], n=1, prior=6.0)[0]
    top = log((2 + 2) / (3 + 6 - 2 - 2)) - log((0 + 2) / (3 + 6 - 0 - 2))
    assert (found.word, found.z) == ("a", pytest.approx(top / sqrt(1 / 4 + 1 / 2)))


def test_counted_texts_are_as_good_as_texts():
    texts = ["wait , is the sum right ?"] * 3
    assert distinctive_words(texts, OTHERS) == distinctive_words(texts, SAID)


def test_one_odd_text_names_nothing():
    found = distinctive_words(["check it"] * 5 + ["banana banana banana banana banana banana"], OTHERS)
    assert [w.word for w in found][0] == "check" and "banana" not in [w.word for w in found]


def test_the_same_texts_on_both_sides_have_no_distinctive_words():
    assert distinctive_words(SAID, OTHERS) == ()
    assert distinctive_words(["wait"], []) == ()


def test_words_are_lower_case_letters_and_texts_are_needed():
    assert words_of("Let's take 12, then 3x!") == ["let's", "take", "then", "x"]
    with pytest.raises(DataError, match="no texts"):
        distinctive_words([], OTHERS)
