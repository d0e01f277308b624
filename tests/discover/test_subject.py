"""Subjects: prompts in groups that never mix, steps of the think section, their names, and answers that are graded."""

import json

import pytest

import think_aloud
from models.miniatures import miniature
from overtone.core.errors import DataError, SettingError
from overtone.data.traces import ReasoningTrace
from overtone.discover.settings import DiscoverSettings
from overtone.discover.subject import BundledSubject, PromptSubject, _gives_answer, make_subject
from overtone.models.hooked import HookedModel


@pytest.fixture(scope="module")
def plain(saved) -> PromptSubject:
    return PromptSubject(HookedModel.load(saved.model), str(saved.prompts), "keywords", 0)


@pytest.fixture(scope="module")
def thinking(saved) -> PromptSubject:
    return PromptSubject(HookedModel.load(saved.thinking), str(saved.prompts), "keywords", 0)


def written(subject, response: str, *, prompt: str = "", **meta) -> ReasoningTrace:
    """A trace with a response of our own words."""
    encode = subject.model.tokenizer.encode
    return ReasoningTrace(tuple(encode(prompt or "What is 1 + 2?\n\n")), tuple(encode(response)), 0, "g", meta)


# -------------------------------------------------------------------------------------------------------------- prompts
def test_prompts_of_the_two_splits_share_no_group_and_repeat_when_there_are_too_few(plain):
    train, test = plain.prompts("train", 40), plain.prompts("test", 9)
    assert len(train) == 40 and len(test) == 9
    assert len({p.group for p in train}) == 18 and len({p.group for p in test}) == 6
    assert not {p.group for p in train} & {p.group for p in test}
    assert train[:22] == train[18:]


def test_equal_prompts_stay_on_one_side(saved, plain, tmp_path):
    rows = [{"prompt": f"What is {i % 5}?", "answer": i} for i in range(20)]
    path = tmp_path / "double.jsonl"
    path.write_text("\n".join(json.dumps(row) for row in rows))
    subject = PromptSubject(plain.model, str(path), "keywords", 0)
    assert not {p.ids for p in subject.prompts("train", 40)} & {p.ids for p in subject.prompts("test", 40)}


def test_the_order_of_prompts_depends_on_the_seed_only(saved, plain):
    again = PromptSubject(plain.model, str(saved.prompts), "keywords", 0)
    other = PromptSubject(plain.model, str(saved.prompts), "keywords", 1)
    assert again.prompts("train", 18) == plain.prompts("train", 18) != other.prompts("train", 18)


def test_without_a_template_a_prompt_ends_at_a_step_boundary(plain):
    for prompt in plain.prompts("train", 18):
        assert prompt.ids[-1] in plain.delimiters
        assert plain.model.tokenizer.decode(list(prompt.ids)) == prompt.meta["prompt"] + "\n\n"


def test_with_a_template_the_model_is_asked_as_it_was_taught(thinking):
    prompt = thinking.prompts("train", 1)[0]
    assert thinking.model.tokenizer.decode(list(prompt.ids)) == prompt.meta["prompt"] + "\n\n<think>\n"


def test_other_fields_of_a_prompt_are_kept(plain):
    assert all(p.meta["answer"] >= 0 and p.meta["prompt"].startswith("What is") for p in plain.prompts("test", 6))


@pytest.mark.parametrize("n", [1, 3])
def test_too_few_different_prompts_are_refused(plain, tmp_path, n):
    path = think_aloud.save_prompts(tmp_path / "few.jsonl", n)
    path.write_text(path.read_text() * 4)
    with pytest.raises(DataError, match=f"{n} different prompts.*at least 4"):
        PromptSubject(plain.model, str(path), "keywords", 0)


def test_what_cannot_write_is_refused(saved):
    with pytest.raises(DataError, match="causal language model"):
        PromptSubject(miniature("bert"), str(saved.prompts), "keywords", 0)
    with pytest.raises(DataError, match="with its tokenizer"):
        PromptSubject(miniature("qwen2"), str(saved.prompts), "keywords", 0)


# ---------------------------------------------------------------------------------------------------------------- steps
def test_steps_are_named_by_the_keyword_rule(plain):
    trace = written(plain, "The sum is 3.\n\nWait, let me check\n\nAlternatively, add!\n\nI make sure")
    assert plain.labels(trace) == ["execution", "reflection", "transition", "reflection"] == plain.kinds(trace)
    assert plain.step_texts(trace)[1] == "Wait, let me check"
    assert plain.validity(trace) == [None] * 4
    assert set(plain.labels(trace)) <= set(plain.behaviours) and "execution" in plain.frame


def test_only_the_think_section_is_cut(thinking):
    after = "The sum.\n\nhold on</think>The sum of 3.\n\nWait, no."
    opened_in_prompt = written(thinking, after, prompt="What?\n\n<think>\n")
    assert thinking.step_texts(opened_in_prompt) == ["The sum", "hold on"]
    assert thinking.labels(opened_in_prompt) == ["execution", "reflection"]
    assert thinking.step_texts(written(thinking, f"<think>{after}")) == ["The sum", "hold on"]
    assert thinking.spans(written(thinking, "The sum.\n\nhold on")) == []


# -------------------------------------------------------------------------------------------------------------- grading
@pytest.mark.parametrize(
    ("text", "answer", "correct"),
    [
        ("The sum is 12.", "12", True),
        ("12. Wait, 13", "12", False),
        ("1,200 and 34 make 1,234.\n\n", "1234", True),
        ("so \\boxed{7} of 9", "7", True),
        ("so \\boxed{7}, no, \\boxed{9}", "7", False),
        ("it is -3", "-3", True),
        ("no number", "0", False),
        ("", "0", False),
    ],
)
def test_the_last_box_or_number_is_what_was_answered(text, answer, correct):
    assert _gives_answer(text, answer) is correct


@pytest.mark.parametrize(
    ("answer", "finished", "correct"), [(3, True, True), (4, True, False), (3, False, False), (None, True, None)]
)
def test_an_answer_counts_when_the_model_ended_with_it(plain, answer, finished, correct):
    meta = {"finished": finished} | ({} if answer is None else {"answer": answer})
    row = plain.outcome(written(plain, "1 + 2.\n\nThe sum is 3.\n\n", **meta), 0.5)
    assert row["correct"] is correct and row["finished"] is finished and row["dose"] == 0.5
    assert (row["steps"], row["count.execution"], row["count.reflection"]) == (2, 2, 0)


def test_the_answer_stands_after_the_think_section(thinking):
    trace = written(thinking, "1 + 2 is 4</think>The sum is 3.", prompt="<think>\n", answer=3, finished=True)
    assert thinking.outcome(trace, 0.0)["correct"] is True
    assert thinking.outcome(trace, 0.0)["steps"] == 1


# ---------------------------------------------------------------------------------------------------- which subject
def test_truth_is_for_the_problems_of_the_bundled_reasoner_only(saved):
    with pytest.raises(SettingError, match="keywords or judge"):
        make_subject(think_aloud.small_settings(saved.model, saved.prompts, labels="truth"))
    with pytest.raises(SettingError, match="auto or truth"):
        make_subject(DiscoverSettings(labels="keywords"))


def test_auto_means_the_best_names_there_are(saved):
    made = make_subject(think_aloud.small_settings(saved.model, saved.prompts))
    assert isinstance(made, PromptSubject) and made.label_source == "keywords"
    assert make_subject(DiscoverSettings()).label_source == "parser"


def test_a_judge_without_an_address_is_refused(saved, monkeypatch):
    monkeypatch.delenv("OVERTONE_JUDGE_MODEL", raising=False)
    with pytest.raises(SettingError, match="OVERTONE_JUDGE"):
        make_subject(think_aloud.small_settings(saved.model, saved.prompts, labels="judge"))


# ------------------------------------------------------------------------------------------------ the bundled reasoner
@pytest.fixture(scope="module")
def bundled() -> BundledSubject:
    subject = make_subject(DiscoverSettings())
    assert isinstance(subject, BundledSubject)
    return subject


def test_bundled_problems_are_held_out_from_the_start(bundled):
    train, test = bundled.prompts("train", 60), bundled.prompts("test", 60)
    sums = bundled.prompts("test", 60, kind="sums")
    groups = [{p.group for p in part} for part in (train, test, sums)]
    assert not groups[0] & groups[1] and not groups[1] & groups[2]
    assert all(p.ids[-1] in bundled.delimiters for p in (*train, *test, *sums))


def test_what_the_generator_writes_is_read_back_as_it_was_meant(bundled):
    for trace in bundled.written_traces(20, "held_out", 0):
        assert bundled.labels(trace) == list(trace.meta["behaviours"])
        assert len(bundled.kinds(trace)) == len(bundled.step_texts(trace)) == len(bundled.validity(trace))


def test_written_traces_keep_their_number_and_wording(bundled):
    seen, held_out = (bundled.written_traces(10, wording, 0) for wording in ("seen", "held_out"))
    assert len(seen) == len(held_out) == 10
    assert [t.tokens for t in seen] != [t.tokens for t in held_out]
    assert [t.tokens for t in seen] == [t.tokens for t in bundled.written_traces(10, "seen", 0)]
