"""Traces: delimiters of real tokenizers, steps in token space, splits by group, an exact round trip through disk."""

from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from overtone.core.errors import DataError, SettingError, StoreError
from overtone.data.countdown import grammar, policy, problems
from overtone.data.countdown.tokens import as_reasoning_trace
from overtone.data.traces import (
    Delimiters,
    ReasoningTrace,
    cut_steps,
    delimiter_ids,
    load_traces,
    save_traces,
    split_groups,
    tokenizer_fingerprint,
    traces_fingerprint,
)

CUT = 9  # the delimiter of hand-made traces
TEXT = "First add 3 and 4.\n\nThe sum is 7.\n\nWait, is it right?\n\n(Yes)\n\nNow multiply.\nOne more line.\n\n"


@pytest.fixture(scope="module")
def byte_level():
    """A byte-level BPE tokenizer that merges punctuation and blank lines, as those of GPT-2, Llama 3 and Qwen do."""
    tok = Tokenizer(models.BPE())
    split = pre_tokenizers.Split(Regex(r" ?[^\s\w]+[\r\n]*|\s*[\r\n]+| ?\w+|\s+"), behavior="isolated")
    tok.pre_tokenizer = pre_tokenizers.Sequence(
        [split, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]
    )
    tok.decoder = decoders.ByteLevel()
    special = ["<eos>", "<pad>", "<think>", "</think>"]
    trainer = trainers.BpeTrainer(
        vocab_size=400,
        special_tokens=special,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tok.train_from_iterator([TEXT * 20], trainer)
    return PreTrainedTokenizerFast(tokenizer_object=tok, eos_token="<eos>", pad_token="<pad>")


def word_level(words):
    tok = Tokenizer(models.WordLevel({w: i for i, w in enumerate(["<unk>", "<eos>", *words])}, unk_token="<unk>"))
    return PreTrainedTokenizerFast(tokenizer_object=tok, unk_token="<unk>", eos_token="<eos>")


def trace(response, prompt=(1, 2), document=0, group="g", **meta):
    return ReasoningTrace(tuple(prompt), tuple(response), document, group, meta)


# ---------------------------------------------------------------------------------------------------------- delimiters
def test_delimiters_are_exactly_the_byte_level_entries_whose_text_holds_a_blank_line(byte_level):
    found = delimiter_ids(byte_level)
    decoded = {i for i in byte_level.get_vocab().values() if "\n\n" in byte_level.decode([i])}
    assert found == decoded
    assert {byte_level.decode([i]) for i in found} >= {"\n\n", ".\n\n", "?\n\n", ")\n\n"}


def test_plain_and_sentencepiece_entries_are_delimiters_too_and_spaces_may_stand_between_the_newlines():
    tokenizer = word_level(["\n\n", ".\n\n", "\n \n", "\n▁\n", "\n", "a\nb", "ĊĊ"])
    assert delimiter_ids(tokenizer) == {2, 3, 4, 5}


def test_special_tokens_but_not_the_unknown_one_are_remembered_with_the_delimiters():
    assert delimiter_ids(word_level(["\n\n"])).special == {1}


def test_a_vocabulary_without_blank_lines_is_refused_and_pairs_are_named_as_the_remedy():
    with pytest.raises(DataError, match="Give the ids"):
        delimiter_ids(word_level(["a", "b"]))
    with pytest.raises(DataError, match="pairs=True"):
        delimiter_ids(word_level(["a", "<0x0A>"]))


def test_two_newline_tokens_in_a_row_cut_like_one_blank_line_when_asked():
    tokenizer = word_level(["<0x0A>", "x", "y", ".\n"])
    newline, x, y, dot = 2, 3, 4, 5
    pairs = delimiter_ids(tokenizer, pairs=True)
    steps = cut_steps(trace([x, newline, y, newline, newline, x, dot, newline, y]), pairs)
    assert [(s.start, s.end, s.before, s.delimiter) for s in steps] == [(2, 5, 1, 6), (7, 9, 6, 9), (10, 11, 9, 10)]


# --------------------------------------------------------------------------------------------------------------- steps
def test_steps_of_a_byte_level_text_are_its_paragraphs(byte_level):
    ids = byte_level.encode(TEXT)
    made = trace(ids)
    steps = cut_steps(made, delimiter_ids(byte_level))
    paragraphs = [byte_level.decode(made.tokens[s.start : s.delimiter + 1]) for s in steps]
    assert [p.rstrip("\n") for p in paragraphs] == TEXT.strip().split("\n\n")


def test_a_step_knows_the_token_before_it_and_the_delimiter_that_ends_it():
    steps = cut_steps(trace([5, 6, CUT, 7, CUT]), frozenset([CUT]))
    assert [(s.index, s.start, s.end, s.before, s.delimiter) for s in steps] == [(0, 2, 4, 1, 4), (1, 5, 6, 4, 6)]


def test_the_last_step_ends_with_the_text_before_end_and_padding_tokens():
    ends = Delimiters([CUT], special=[0])
    steps = cut_steps(trace([5, CUT, 6, 7, 0, 0]), ends)
    assert [(s.start, s.end, s.delimiter) for s in steps] == [(2, 3, 3), (4, 6, 5)]
    assert cut_steps(trace([5, CUT, 6, 7]), ends) == steps


def test_empty_steps_are_skipped_and_the_next_one_follows_the_last_delimiter():
    steps = cut_steps(trace([CUT, 5, CUT, CUT, CUT, 6]), frozenset([CUT]))
    assert [(s.index, s.start, s.end, s.before) for s in steps] == [(0, 3, 4, 2), (1, 7, 8, 6)]


def test_a_document_without_prompt_has_nothing_before_its_first_step():
    assert cut_steps(trace([5, CUT], prompt=()), frozenset([CUT]))[0].before == -1


OPEN, CLOSE = 20, 21


@pytest.mark.parametrize(
    ("prompt", "response", "expected"),
    [
        ((1, 2), (OPEN, 5, CUT, 6, CLOSE, CUT, 7), [(3, 4), (5, 6)]),  # opened in the response
        ((1, OPEN), (5, CUT, 6, CLOSE, 7, CUT, 8), [(2, 3), (4, 5)]),  # opened by the prompt
        ((OPEN, 1, CLOSE), (3, OPEN, 5, CUT, 6), [(5, 6), (7, 8)]),  # an example in the prompt; never closed
        ((1, 2), (5, CUT, 6), []),  # no section
    ],
)
def test_only_the_think_section_is_cut(prompt, response, expected):
    steps = cut_steps(trace(response, prompt), frozenset([CUT]), think=(OPEN, CLOSE))
    assert [(s.start, s.end) for s in steps] == expected


def test_without_an_open_mark_the_section_reaches_from_the_response_to_the_close_mark():
    steps = cut_steps(trace([5, CUT, 6, CLOSE, 7]), frozenset([CUT]), think=(None, CLOSE))
    assert [(s.start, s.end) for s in steps] == [(2, 3), (4, 5)]


@settings(deadline=None, max_examples=50)
@given(st.lists(st.integers(0, CUT), max_size=40), st.lists(st.integers(0, CUT), min_size=1, max_size=4))
def test_steps_cover_every_ordinary_token_once_in_order_and_hold_nothing_else(response, prompt):
    made = trace(response, prompt)
    steps = cut_steps(made, Delimiters([CUT], special=[0]))
    covered = [i for s in steps for i in range(s.start, s.end)]
    ordinary = [i for i in range(len(prompt), len(made.tokens)) if made.tokens[i] not in (0, CUT)]
    assert covered == ordinary
    assert [s.index for s in steps] == list(range(len(steps)))
    assert all(s.before == s.start - 1 and s.delimiter in (s.end, s.end - 1) for s in steps)


def test_a_written_trace_is_cut_into_the_steps_it_was_written_with():
    vocabulary = {w: i for i, w in enumerate(["<pad>", "<bos>", "<eos>", "<unk>", "\n\n", *grammar.vocabulary()])}
    ends, rng = Delimiters([4], special=[0, 1, 2]), Random(3)
    pool = problems.split_problems("plain", held_out=False)
    written = [w for w in (policy.write_trace(rng.choice(pool), rng) for _ in range(60)) if w is not None]
    assert len(written) > 30
    for source in written:
        made = as_reasoning_trace(source, vocabulary)
        steps = cut_steps(made, ends)
        assert len(steps) == len(source.steps) == len(made.meta["behaviours"])
        assert steps[0].before == len(made.prompt_ids) - 1
        assert made.tokens[steps[-1].end] == vocabulary["<eos>"]


def test_a_trace_without_any_token_is_refused():
    with pytest.raises(DataError, match="no token"):
        trace([], prompt=())


# -------------------------------------------------------------------------------------------------------------- splits
def many(n_groups=30, per_group=3):
    return [trace([5, i], document=i, group=f"p{i % n_groups}") for i in range(n_groups * per_group)]


@settings(deadline=None, max_examples=50)
@given(st.integers(0, 2**31), st.randoms(use_true_random=False))
def test_a_split_is_a_partition_by_group_that_ignores_the_order_of_traces(seed, rng):
    traces, shares = many(), {"fit": 0.5, "select": 0.2, "report": 0.3}
    parts = split_groups(traces, shares, seed)
    groups = {name: {t.group for t in part} for name, part in parts.items()}
    assert sorted(t.document for part in parts.values() for t in part) == list(range(90))
    assert {name: len(g) for name, g in groups.items()} == {"fit": 15, "select": 6, "report": 9}
    assert sum(len(g) for g in groups.values()) == len(set.union(*groups.values()))
    shuffled = list(traces)
    rng.shuffle(shuffled)
    again = split_groups(shuffled, shares, seed)
    assert {name: {t.group for t in part} for name, part in again.items()} == groups


def test_another_seed_makes_another_split_and_parts_keep_the_order_of_their_traces():
    one, two = (split_groups(many(), {"a": 0.5, "b": 0.5}, seed) for seed in (0, 1))
    assert one != two
    assert [t.document for t in one["a"]] == sorted(t.document for t in one["a"])


def test_a_split_that_would_be_empty_is_refused():
    with pytest.raises(DataError, match="'tiny'.*would be empty.*3 groups"):
        split_groups(many(3), {"most": 0.95, "tiny": 0.05}, 0)


@pytest.mark.parametrize("shares", [{}, {"a": 0.5}, {"a": 1.2, "b": -0.2}, {"a": 0.0, "b": 1.0}])
def test_shares_that_are_no_shares_are_refused(shares):
    with pytest.raises(SettingError, match="together they must be 1"):
        split_groups(many(), shares, 0)


# ---------------------------------------------------------------------------------------------------------------- disk
def test_traces_come_back_from_disk_as_they_were(tmp_path):
    traces = [trace([5, CUT], document=3, group="a", prompt_text="x", finished=True), trace([], document=4)]
    save_traces(tmp_path / "traces", traces, tokenizer="t", seed=1)
    loaded = load_traces(tmp_path / "traces", tokenizer="t")
    assert loaded == traces
    assert [t.meta for t in loaded] == [t.meta for t in traces]


def test_traces_of_another_tokenizer_are_refused(tmp_path, byte_level):
    save_traces(tmp_path / "traces", [trace([5])], tokenizer=tokenizer_fingerprint(byte_level))
    with pytest.raises(StoreError, match="another tokenizer"):
        load_traces(tmp_path / "traces", tokenizer=tokenizer_fingerprint(word_level(["a"])))


def test_nothing_is_left_behind_when_a_meta_cannot_be_written(tmp_path):
    with pytest.raises(DataError, match="trace 0 is not plain data"):
        save_traces(tmp_path / "traces", [trace([5], thing=object())])
    with pytest.raises(DataError, match="no traces"):
        save_traces(tmp_path / "traces", [])
    assert list(tmp_path.iterdir()) == []


def test_the_fingerprint_sees_tokens_prompt_lengths_and_order_but_not_meta():
    one, two = trace([5, 6]), trace([6, 5], document=1)
    assert traces_fingerprint([one, two]) != traces_fingerprint([two, one])
    assert traces_fingerprint([trace([5])]) != traces_fingerprint([trace([2, 5], prompt=(1,))])
    assert traces_fingerprint([trace([5], a=1)]) == traces_fingerprint([trace([5], a=2)])
