"""Documentation of the standard library as texts: real, split by module, the same for one seed."""

import sysconfig
from collections import Counter
from pathlib import Path

import pytest

from overtone.core.errors import DataError, SettingError
from overtone.data import docstrings as module
from overtone.data.docstrings import FEWEST_WORDS, docstrings

ROOT = Path(sysconfig.get_paths()["stdlib"])


def source(name):
    """The file of a module, as words."""
    path = ROOT / Path(*name.split("."))
    file = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
    return " ".join(file.read_text(encoding="utf-8").split())


def test_each_text_stands_in_the_source_of_its_module():
    texts = docstrings(40)
    assert len(texts) == 40
    for text in texts:
        words = text.text.split()
        assert len(words) >= FEWEST_WORDS and text.meta["package"] == text.group.split(".")[0]
        assert "test" not in text.group.split(".") and " ".join(words[:3]).split("\\")[0] in source(text.group)


def test_a_module_gives_a_limited_number_and_seeds_give_other_modules():
    texts, again, other = docstrings(30, per_module=3), docstrings(30, per_module=3), docstrings(30, seed=1)
    assert texts == again and max(Counter(t.group for t in texts).values()) <= 3
    assert {t.group for t in texts} != {t.group for t in other}


def test_counts_below_one_and_missing_sources_are_refused(tmp_path, monkeypatch):
    with pytest.raises(SettingError, match="n_texts=0"):
        docstrings(0)
    monkeypatch.setattr(module.sysconfig, "get_paths", lambda: {"stdlib": str(tmp_path)})
    with pytest.raises(DataError, match="Install Python with its sources"):
        docstrings(3)
