"""Traces as token ids: one row, cut where prompt and response meet, that says again what was written."""

from overtone.data.countdown import grammar
from overtone.data.countdown.tokens import as_reasoning_trace, group_of
from overtone.data.traces import split_groups

SPECIAL = ["<pad>", "<bos>", "<eos>", "<unk>", "\n\n"]
IDS = {word: i for i, word in enumerate(SPECIAL + grammar.vocabulary())}
WORDS = list(IDS)


def test_a_row_is_the_text_word_for_word_with_blank_lines_between_and_the_end_mark_last(seen):
    for i, trace in enumerate(seen[:100]):
        row = as_reasoning_trace(trace, IDS, document=i)
        said = [WORDS[t] for t in row.tokens]
        assert said[0] == "<bos>" and said[-1] == "<eos>" and row.document == i
        sections = grammar.natural(" ".join(said[1:-1])).split(" \n\n ")
        assert sections == [trace.prompt, *(step.text for step in trace.steps)]


def test_the_prompt_ends_with_the_blank_line_after_which_the_first_step_is_decided(seen):
    for trace in seen[:20]:
        row = as_reasoning_trace(trace, IDS)
        assert row.prompt_ids[-1] == IDS["\n\n"] and row.prompt_ids.count(IDS["\n\n"]) == 1
        assert row.response_ids.count(IDS["\n\n"]) == len(trace.steps) - 1


def test_what_is_known_of_a_trace_goes_with_it(seen):
    for trace in seen[:20]:
        meta = as_reasoning_trace(trace, IDS).meta
        assert meta["behaviours"] == [s.behaviour for s in trace.steps]
        assert (meta["prompt"], meta["style"], meta["correct"]) == (trace.prompt, trace.style, trace.correct)


def test_traces_of_one_problem_share_a_group_that_no_split_cuts(seen):
    keys = {trace.problem: group_of(trace.problem) for trace in seen}
    assert len(set(keys.values())) == len(keys)
    rows = [as_reasoning_trace(t, IDS, document=i) for i, t in enumerate(seen)]
    parts = split_groups(rows, {"a": 0.5, "b": 0.5}, seed=0)
    groups = [{row.group for row in part} for part in parts.values()]
    assert groups[0] and groups[1] and not groups[0] & groups[1]
