"""Files people have become texts, and what cannot become one is refused with its place."""

import json

import pytest
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

from overtone.core.errors import DataError, SettingError
from overtone.data.texts import encode_texts, read_texts


def write(folder, name, content):
    path = folder / name
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return path


@pytest.fixture
def tokenizer():
    vocabulary = {w: i for i, w in enumerate(["<unk>", "<bos>", "<eos>", "one", "two", "three", "user", "model"])}
    tok = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tok.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    pair = [("<bos>", 1), ("<eos>", 2)]
    tok.post_processor = processors.TemplateProcessing(single="<bos> $A <eos>", special_tokens=pair)
    return PreTrainedTokenizerFast(tokenizer_object=tok, unk_token="<unk>", bos_token="<bos>", eos_token="<eos>")


def test_every_format_gives_the_same_texts(tmp_path):
    files = [
        write(tmp_path, "a.txt", "one two\n\nthree\n"),
        write(tmp_path, "a.json", ["one two", "three"]),
        write(tmp_path, "b.json", {"name": "set", "items": [{"question": "one two"}, {"question": "three"}]}),
        write(tmp_path, "a.jsonl", '{"prompt": "one two"}\n\n"three"\n'),
    ]
    assert [[t.text for t in read_texts(f)] for f in files] == [["one two", "three"]] * 4


def test_a_record_keeps_its_other_fields_and_its_group_and_equal_texts_share_one(tmp_path):
    lines = [{"problem": "one", "group": "g", "level": 3}, {"problem": "two"}, {"problem": "two"}]
    texts = read_texts(write(tmp_path, "a.jsonl", "\n".join(map(json.dumps, lines))))
    assert (texts[0].group, texts[0].meta) == ("g", {"level": 3})
    assert texts[1].group == texts[2].group != "g"


def test_a_named_field_is_the_one_that_is_read_and_limit_stops_early(tmp_path):
    path = write(tmp_path, "a.json", [{"prompt": "no", "body": "yes"}, {"body": "more"}, {"body": 3}])
    assert [t.text for t in read_texts(path, name="body", limit=2)] == ["yes", "more"]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.csv", "x", r"read from .jsonl, .json, .txt"),
        ("a.jsonl", '{"prompt": "x"}\n{"prompt"', "line 2 is not JSON"),
        ("a.jsonl", '{"prompt": "x"}\n{"prompt": "  "}', "line 2: field 'prompt' is"),
        ("a.jsonl", '{"prompt": ""}', "line 1: field 'prompt' is empty"),
        ("a.jsonl", '{"body": "x"}', "none of the fields prompt.*It has: body"),
        ("a.jsonl", "7", "line 1: expected a text or an object, got int"),
        ("a.json", '{"a": 1}', "expected a list"),
        ("a.txt", "\n \n", "holds no text"),
        ("a.json", "[]", "holds no text"),
    ],
)
def test_what_is_no_text_is_refused_with_its_place(tmp_path, name, content, message):
    with pytest.raises(DataError, match=message):
        read_texts(write(tmp_path, name, content))


def test_a_missing_file_a_folder_and_a_binary_file_are_refused(tmp_path):
    (tmp_path / "b.txt").write_bytes(b"\xff\xfe\x00")
    (tmp_path / "c.txt").mkdir()
    for name, message in (("a.txt", "does not exist"), ("b.txt", "UTF-8"), ("c.txt", "UTF-8")):
        with pytest.raises(DataError, match=message):
            read_texts(tmp_path / name)


def test_a_mistyped_field_names_the_nearest_one(tmp_path):
    with pytest.raises(DataError, match="Did you mean 'solution'"):
        read_texts(write(tmp_path, "a.json", [{"solution": "x"}]), name="solutoin")


def test_prompts_get_their_start_token_but_no_end_and_responses_get_neither(tmp_path, tokenizer):
    texts = read_texts(write(tmp_path, "a.jsonl", '{"prompt": "one two", "response": "three one", "group": "g"}'))
    (trace,) = encode_texts(tokenizer, texts)
    assert (trace.prompt_ids, trace.response_ids, trace.group) == ((1, 3, 4), (5, 3), "g")
    assert trace.meta["prompt"] == "one two"


def test_long_traces_are_cut_to_the_longest_allowed(tmp_path, tokenizer):
    texts = read_texts(write(tmp_path, "a.jsonl", '{"prompt": "one two", "response": "three one"}'))
    assert [len(encode_texts(tokenizer, texts, longest=n)[0].tokens) for n in (2, 4, 9)] == [2, 4, 5]


def test_a_chat_template_wraps_the_prompt_and_its_absence_is_an_error(tmp_path, tokenizer):
    texts = read_texts(write(tmp_path, "a.txt", "one two"))
    with pytest.raises(SettingError, match="no chat template"):
        encode_texts(tokenizer, texts, chat=True)
    tokenizer.chat_template = "{% for m in messages %}user {{ m.content }} {% endfor %}model"
    assert encode_texts(tokenizer, texts, chat=True)[0].prompt_ids == (6, 3, 4, 7)
