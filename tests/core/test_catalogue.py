"""The catalogue finds every file of its folders and answers mistakes by name."""

import pkgutil
from importlib import import_module

import pytest

from overtone.core.catalogue import FOLDERS, entries, lookup
from overtone.core.errors import SettingError


@pytest.mark.parametrize("kind", sorted(FOLDERS))
def test_every_file_of_a_folder_enrols_something(kind):
    files = {m.name for m in pkgutil.iter_modules(import_module(FOLDERS[kind]).__path__)}
    enrolled = {entry.thing.__module__.rsplit(".", 1)[-1] for entry in entries(kind).values()}
    assert files - enrolled <= {"base"}, f"{kind}: {files - enrolled} enrol nothing"
    assert entries(kind)


@pytest.mark.parametrize("kind", sorted(FOLDERS))
def test_every_entry_has_a_summary_and_plain_facts(kind):
    import json

    for entry in entries(kind).values():
        assert entry.summary, f"{kind} {entry.name} has no summary"
        json.dumps(entry.to_dict())


def test_a_mistyped_name_is_answered_with_the_nearest_one():
    with pytest.raises(SettingError, match="Did you mean 'top_k'"):
        lookup("dictionaries", "topk")
    with pytest.raises(SettingError, match="Did you mean 'edits'"):
        entries("edit")
