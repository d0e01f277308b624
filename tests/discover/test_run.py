"""A run's folder: parts are reused when everything they depend on is the same, and only then."""

import json

import pytest

from overtone.core.errors import StoreError
from overtone.discover.run import Run


def never():
    raise AssertionError("this part was there already")


def test_a_part_is_made_once_for_the_same_key(tmp_path):
    first = Run(tmp_path / "run", resume=False)
    assert first.data("numbers", {"seed": 1}, lambda: [1, 2.5, None]) == [1, 2.5, None]
    assert first.reused == [] and "numbers" in first.seconds
    second = Run(tmp_path / "run", resume=True)
    assert second.data("numbers", {"seed": 1}, never) == [1, 2.5, None]
    assert second.reused == ["numbers"] and second.seconds == {}


@pytest.mark.parametrize("other", [("numbers", {"seed": 2}), ("letters", {"seed": 1})])
def test_another_key_or_name_is_another_part(tmp_path, other):
    run = Run(tmp_path / "run", resume=True)
    run.data("numbers", {"seed": 1}, lambda: "old")
    assert run.data(*other, lambda: "new") == "new"
    assert run.data("numbers", {"seed": 1}, never) == "old"


def test_a_key_is_what_its_data_say_not_how_they_are_ordered(tmp_path):
    run = Run(tmp_path / "run", resume=False)
    assert run.path("x", {"a": 1, "b": (2, 3)}) == run.path("x", {"b": [2, 3], "a": 1})
    assert len({run.path("x"), run.path("x", 1), run.path("x", 1, 1), run.path("x", [1, 1]), run.path("y")}) == 5


def test_without_resume_parts_are_made_anew_and_other_files_stay(tmp_path):
    run = Run(tmp_path / "run", resume=False)
    run.data("numbers", 1, lambda: "old")
    (run.folder / "notes.txt").write_text("mine")
    again = Run(tmp_path / "run", resume=False)
    assert again.data("numbers", 1, lambda: "new") == "new"
    assert (run.folder / "notes.txt").read_text() == "mine"


def test_a_part_that_fails_leaves_nothing(tmp_path):
    run = Run(tmp_path / "run", resume=True)
    with pytest.raises(AssertionError):
        run.data("numbers", 1, never)
    with pytest.raises(ValueError):
        run.data("numbers", 1, lambda: float("nan"))  # what JSON cannot hold is a fault, not a null
    assert list(run.parts.iterdir()) == []


@pytest.mark.parametrize("resume", [True, False])
def test_a_foreign_folder_is_left_alone(tmp_path, resume):
    (tmp_path / "parts").mkdir()
    (tmp_path / "parts" / "thesis.tex").write_text("years of work")
    with pytest.raises(StoreError, match="another folder"):
        Run(tmp_path, resume=resume)
    assert [p.name for p in tmp_path.rglob("*")] == ["parts", "thesis.tex"]
    with pytest.raises(StoreError, match="is a file"):
        Run(tmp_path / "parts" / "thesis.tex", resume=resume)


def test_an_empty_folder_becomes_a_run(tmp_path):
    run = Run(tmp_path, resume=True)
    assert json.loads((tmp_path / "run.json").read_text())["layout"] >= 1 and run.parts.is_dir()


def test_seconds_add_up(tmp_path):
    run = Run(tmp_path, resume=True)
    run.spent("steering", 1.25)
    run.spent("steering", 2.5)
    assert run.seconds == {"steering": 3.75}
