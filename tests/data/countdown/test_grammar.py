"""The language: every sentence reads back as what it was written as, and no behaviour is one word."""

import re
from collections import Counter, defaultdict
from pathlib import Path

from overtone.data.countdown import grammar
from overtone.data.countdown.parser import parse_step, words

CORES = grammar.all_cores()
HOLES = dict(x=9, y=4, r=5, c=6, a=4, b=7, t=42, m=8, g=41, s=13, d=3, p=36, w=2, o="-", q="*", z=1)
PAGE = Path(__file__).parents[3] / "docs" / "reasoner.md"


def facts(step):
    """What a core and a parsed step have in common."""
    return step.subkind, step.op, step.about, step.held_out


def literal(core):
    """The words of a core that are not holes."""
    return {token for token in core.template.split() if not token.startswith("{")}


def words_of_one_behaviour():
    """behaviour -> the words that no other behaviour's cores contain."""
    users = defaultdict(set)
    for core in CORES:
        for word in literal(core):
            users[word].add(grammar.SUBKINDS[core.subkind])
    alone = defaultdict(set)
    for word, behaviours in users.items():
        if len(behaviours) == 1:
            alone[next(iter(behaviours))].add(word)
    return alone


def test_every_core_reads_back_as_itself_with_and_without_an_opener():
    wrong = []
    for i, core in enumerate(CORES):
        used = set(re.findall(r"\{(\w+)\}", core.template))
        for opener in ("", grammar.OPENERS[i % len(grammar.OPENERS)]):
            step = parse_step(grammar.natural(f"{opener} {core.template.format(**HOLES)}".strip()))
            if facts(step) != facts(core) or step.holes != {k: v for k, v in HOLES.items() if k in used}:
                wrong.append((opener, core))
    assert wrong == []


def test_no_two_cores_look_alike_once_their_numbers_are_covered():
    covered = Counter(re.sub(r"\{[oq]\}", "@", re.sub(r"\{[^oq}]+\}", "#", core.template)) for core in CORES)
    assert [text for text, n in covered.items() if n > 1] == []


def test_every_subkind_has_a_behaviour_and_every_behaviour_a_subkind():
    assert {core.subkind for core in CORES} == set(grammar.SUBKINDS)
    assert set(grammar.SUBKINDS.values()) == set(grammar.BEHAVIOURS) == set(grammar.OPENER_WEIGHTS)


def test_whatever_can_be_said_can_be_said_in_training_wording_and_in_held_out_wording():
    """Each sub-kind, operation and situation has several cores to train on and at least one kept apart."""
    seen, held = (Counter((c.subkind, c.op, c.about) for c in CORES if c.held_out is kept) for kept in (False, True))
    assert set(seen) == set(held)
    assert min(seen.values()) >= 3 and min(held.values()) >= 1


def test_held_out_wording_uses_no_word_that_training_wording_lacks():
    known = set().union(*(literal(core) for core in CORES if not core.held_out))
    assert set().union(*(literal(core) for core in CORES if core.held_out)) <= known


def test_no_behaviour_but_the_bracketed_conclusion_can_be_told_by_one_word():
    alone = words_of_one_behaviour()
    assert {"(", ")"} <= alone["conclusion"]
    for behaviour in set(grammar.BEHAVIOURS) - {"conclusion"}:
        cores = [literal(core) for core in CORES if grammar.SUBKINDS[core.subkind] == behaviour]
        shares = [sum(word in core for core in cores) / len(cores) for word in alone[behaviour]]
        assert max(shares) <= 0.5, behaviour


def test_an_opener_hints_at_a_behaviour_but_never_decides_it():
    for behaviour, weights in grammar.OPENER_WEIGHTS.items():
        assert len(weights) == len(grammar.OPENERS) and min(weights) > 0, behaviour
    shares = {b: [w / sum(ws) for w in ws] for b, ws in grammar.OPENER_WEIGHTS.items()}
    for i in range(len(grammar.OPENERS)):
        likeliest = max(share[i] for share in shares.values())
        assert likeliest < 0.5 * sum(share[i] for share in shares.values())


def test_openers_do_not_stack():
    core = grammar.natural(CORES[0].template.format(**HOLES))
    assert parse_step(f"so, {core}").subkind == CORES[0].subkind
    assert parse_step(f"so, now, {core}").subkind == "unknown"


def test_natural_text_is_cut_into_the_tokens_it_was_made_of():
    for core in CORES:
        tokens = core.template.format(**HOLES)
        text = grammar.natural(tokens)
        assert words(text) == tokens.split()
        assert not re.search(r" [,.?)]|\( ", text)


def test_the_vocabulary_lists_every_word_once_after_the_integers():
    vocabulary = grammar.vocabulary()
    assert vocabulary[:100] == [str(n) for n in range(100)]
    assert len(set(vocabulary)) == len(vocabulary)
    assert vocabulary[100:] == sorted(vocabulary[100:])
    prompts = {w for text in grammar.PROMPTS.values() for w in text.split() if not w.startswith("{")}
    said = set().union(*map(literal, CORES), *(opener.split() for opener in grammar.OPENERS), prompts)
    assert set(vocabulary[100:]) == said | {"+", "-", "*", "big"}


def test_the_page_on_the_reasoner_shows_a_sentence_of_every_subkind_and_counts_them():
    row = r"^\| `([a-z_]+)` \| ([a-z]+) \| (\d+) \| (.+) \|$"
    rows = re.findall(row, PAGE.read_text(encoding="utf-8"), re.MULTILINE)
    assert {subkind: behaviour for subkind, behaviour, _, _ in rows} == grammar.SUBKINDS
    assert {subkind: int(n) for subkind, _, n, _ in rows} == Counter(core.subkind for core in CORES)
    assert [subkind for subkind, _, _, text in rows if parse_step(text).subkind != subkind] == []
