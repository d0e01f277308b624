"""overtone list: the catalogue as it is."""

import json

import pytest

from overtone.cli import main
from overtone.core.catalogue import entries
from overtone.core.sites import KINDS


def listed(capsys, *words: str) -> list:
    assert main(["list", *words, "--json"]) == 0
    return json.loads(capsys.readouterr().out)


@pytest.mark.parametrize("kind", ["dictionaries", "edits", "formats", "adapters"])
def test_every_entry_is_listed_with_what_it_is(kind, capsys):
    found = listed(capsys, kind)
    assert [entry["name"] for entry in found] == list(entries(kind))
    assert all(entry["summary"] for entry in found)


def test_dictionaries_are_listed_with_their_paper_knobs_and_capabilities(capsys):
    top_k = next(entry for entry in listed(capsys, "dictionaries") if entry["name"] == "top_k")
    assert "2406.04093" in top_k["paper"]
    assert "k" in top_k["knobs"] and top_k["capabilities"]


def test_sites_are_listed_by_kind(capsys):
    assert [row["name"].removesuffix(".LAYER") for row in listed(capsys, "sites")] == list(KINDS)


def test_people_see_a_table(capsys):
    assert main(["list", "edits"]) == 0
    told = capsys.readouterr().out
    assert all(name in told for name in entries("edits"))
