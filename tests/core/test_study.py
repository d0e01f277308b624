"""A study is its body: the decorator adds scales, the entry in the catalogue and the report around it."""

from dataclasses import dataclass

import pytest

from overtone.core import catalogue
from overtone.core.errors import SettingError
from overtone.core.report import Finding
from overtone.core.settings import Settings
from overtone.core.study import Found, at_scale, study


@dataclass(frozen=True)
class Size(Settings):
    seeds: int = 3


SCALES = {"tiny": Size(1), "small": Size()}


@pytest.fixture
def made(monkeypatch):
    catalogue.entries("studies")  # all are imported, so that none enrols itself in the copy
    monkeypatch.setitem(catalogue._ENTRIES, "studies", dict(catalogue._ENTRIES["studies"]))

    @study("counting", "Counting: how many seeds?", paper="A paper, arXiv 0000.00000", scales=SCALES)
    def run(size: Size) -> Found:
        """Counts its seeds."""
        found = Finding("a", "there are some", float(size.seeds), "seeds", 1, True)
        return Found((found,), {"seeds": [{"n": size.seeds}]}, {"counted by": "hand"})

    return run


def test_a_report_says_what_was_run_at_which_scale_with_which_settings(made):
    report = made("tiny", "a/folder")
    assert report.title == "Counting: how many seeds?" and report.finding("a").measured == 1
    assert report.sections == {"seeds": [{"n": 1}]}
    assert report.provenance == {
        "study": "counting", "scale": "tiny", "paper": "A paper, arXiv 0000.00000", "settings": {"seeds": 1},
        "counted by": "hand",
    }  # fmt: skip
    assert made().provenance["scale"] == "small"


def test_a_study_is_found_in_the_catalogue_with_its_scales(made):
    entry = catalogue.lookup("studies", "counting")
    assert entry.thing is made and entry.facts["scales"] == ["tiny", "small"] and entry.summary == "Counts its seeds."


def test_an_unknown_scale_is_refused_with_the_nearest(made):
    with pytest.raises(SettingError, match=r"scale='tiniy'. Did you mean 'tiny'\? Use tiny, small"):
        made("tiniy")
    assert at_scale("small", {"small": 7}) == 7
