"""Artifact folders are whole or not there, and say what is wrong with them."""

import json
import os
from pathlib import Path

import pytest

from overtone.core.artifacts import Manifest, new_folder, read_manifest, require_room, write_json
from overtone.core.errors import StoreError


def make(path, content="hello"):
    with new_folder(path, Manifest("thing", seed=1, sources={"model": "abc"})) as folder:
        (folder / "data.txt").write_text(content)


def test_a_written_folder_reads_back_with_its_manifest(tmp_path):
    make(tmp_path / "a")
    manifest = read_manifest(tmp_path / "a", "thing")
    assert manifest.seed == 1
    assert manifest.sources == {"model": "abc"}
    assert list(manifest.files) == ["data.txt"]


def test_an_exception_leaves_nothing_behind_and_the_old_artifact_in_place(tmp_path):
    make(tmp_path / "a", "old")
    with pytest.raises(RuntimeError), new_folder(tmp_path / "a", Manifest("thing")) as folder:
        (folder / "data.txt").write_text("new")
        raise RuntimeError
    assert (tmp_path / "a" / "data.txt").read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["a"]


@pytest.mark.parametrize("taken", [False, True])
def test_a_place_where_one_may_not_write_is_told_before_the_work(taken, tmp_path, monkeypatch):
    if taken:
        make(tmp_path / "a")
    monkeypatch.setattr(os, "access", lambda path, mode: Path(path) != tmp_path)
    with pytest.raises(StoreError, match=f"nothing may be written in {tmp_path}"):
        require_room(tmp_path / "a", "thing")


def test_a_folder_that_the_system_does_not_make_is_one_line(tmp_path, monkeypatch):
    def refused(self, *args, **kwargs):
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(Path, "mkdir", refused)
    with pytest.raises(StoreError, match="no folder can be made at .*Operation not permitted. Choose another place"):
        make(tmp_path / "a")


def test_the_fingerprint_follows_the_content_not_the_name(tmp_path):
    make(tmp_path / "a")
    make(tmp_path / "b")
    make(tmp_path / "c", "other")
    a, b, c = (read_manifest(tmp_path / n, "thing").fingerprint for n in "abc")
    assert a == b != c


def test_a_foreign_folder_is_left_alone(tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "precious.txt").write_text("keep")
    with pytest.raises(StoreError, match="left alone"), new_folder(tmp_path / "mine", Manifest("thing")):
        pass
    assert (tmp_path / "mine" / "precious.txt").read_text() == "keep"


def damage_bytes(folder):
    (folder / "data.txt").write_text("hellp")


def remove_file(folder):
    (folder / "data.txt").unlink()


def remove_manifest(folder):
    (folder / "manifest.json").unlink()


def newer_schema(folder):
    data = json.loads((folder / "manifest.json").read_text())
    (folder / "manifest.json").write_text(json.dumps({**data, "schema": 99}))


def garble_manifest(folder):
    (folder / "manifest.json").write_text("{")


@pytest.mark.parametrize(
    ("harm", "said"),
    [
        (damage_bytes, "damaged"),
        (remove_file, "missing or damaged"),
        (remove_manifest, "foreign or unfinished"),
        (newer_schema, "Update overtone"),
        (garble_manifest, "not a manifest"),
    ],
)
def test_a_damaged_folder_is_refused_with_the_reason(tmp_path, harm, said):
    make(tmp_path / "a")
    harm(tmp_path / "a")
    with pytest.raises(StoreError, match=said):
        read_manifest(tmp_path / "a", "thing")


def test_a_folder_of_another_kind_is_refused_by_name(tmp_path):
    make(tmp_path / "a")
    with pytest.raises(StoreError, match="holds a thing, not a store"):
        read_manifest(tmp_path / "a", "store")


def test_json_is_never_written_with_nan(tmp_path):
    with pytest.raises(ValueError):
        write_json(tmp_path / "x.json", {"a": float("nan")})
    assert not (tmp_path / "x.json").exists()


def test_a_readme_is_for_people_and_may_change(tmp_path):
    with new_folder(tmp_path / "a", Manifest("thing")) as folder:
        (folder / "data.txt").write_text("hello")
        (folder / "README.md").write_text("as it was made")
    before = read_manifest(tmp_path / "a", "thing")
    (tmp_path / "a" / "README.md").write_text("as I want it")
    assert read_manifest(tmp_path / "a", "thing").fingerprint == before.fingerprint
    (tmp_path / "a" / "README.md").unlink()
    assert list(read_manifest(tmp_path / "a", "thing").files) == ["data.txt"]


def test_a_folder_from_when_readmes_were_hashed_still_loads(tmp_path):
    make(tmp_path / "a")
    manifest = json.loads((tmp_path / "a" / "manifest.json").read_text())
    manifest["files"]["README.md"] = "0" * 64
    (tmp_path / "a" / "manifest.json").write_text(json.dumps(manifest))
    (tmp_path / "a" / "README.md").write_text("edited since")
    assert "README.md" in read_manifest(tmp_path / "a", "thing").files
    (tmp_path / "a" / "data.txt").write_text("edited")
    with pytest.raises(StoreError, match="damaged"):
        read_manifest(tmp_path / "a", "thing")


@pytest.mark.parametrize(("kind", "named"), [("directions", "directions"), ("store", "a store"), ("item", "an item")])
def test_another_kind_is_named_with_its_article(tmp_path, kind, named):
    make(tmp_path / "a")
    with pytest.raises(StoreError, match=f"holds a thing, not {named}. Give the folder of {named}"):
        read_manifest(tmp_path / "a", kind)
