"""The RISE study at its smallest: it runs from the command line, speaks of every claim, and shows on the scoreboard.

Nothing is asked of the numbers: at this scale they show that the machinery runs.
"""

import json

import pytest

from overtone.cli import main
from overtone.core.errors import SettingError
from overtone.discover.settings import DiscoverSettings
from overtone.studies import rise


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """The folder of studies after `overtone study rise --scale tiny`."""
    folder = tmp_path_factory.mktemp("studies")
    assert main(["study", "rise", "--scale", "tiny", "--runs", str(folder), "--quiet"]) == 0
    return folder


@pytest.fixture(scope="module")
def report(runs):
    return json.loads((runs / "rise-tiny" / "report.json").read_text())


def test_every_claim_has_its_letter_and_every_finding_its_shape(report):
    assert {f["id"][0] for f in report["findings"]} == set("abcdef")
    for f in report["findings"]:
        assert {"claim", "paper", "measured", "unit", "interval", "control", "n", "holds"} <= set(f)
        assert f["holds"] in (True, False, None)


def test_the_effect_of_the_vector_has_its_controls(report):
    by_id = {f["id"]: f for f in report["findings"]}
    assert {f"c.reflection.{n}" for n in ("monotone", "amplify", "suppress", "bias", "shuffled", "scale")} <= set(by_id)
    assert by_id["c.reflection.amplify"]["control"] > 0 and by_id["d.entropy"]["control"] is not None
    assert {f["id"].split(".")[2] for f in report["findings"] if f["id"].startswith("a.")} == {"problems", "wording"}


def test_provenance_names_paper_and_scale(report):
    told = report["provenance"]
    assert "2512.23988" in told["paper"] and (told["study"], told["scale"]) == ("rise", "tiny")
    assert told["labels"] == "parser" and told["settings"]["causal"]["n_problems"] == rise.tiny().causal.n_problems


def test_running_it_again_finds_the_same_at_once_and_prints_it_as_json(runs, report, capsys):
    assert main(["study", "rise", "--scale", "tiny", "--runs", str(runs), "--json", "--quiet"]) == 0
    again = json.loads(capsys.readouterr().out)
    assert again["findings"] == report["findings"] and set(again["provenance"]["seconds"]) == {"total"}


def test_the_scoreboard_counts_what_held(runs, report, capsys):
    assert main(["studies", "--runs", str(runs), "--json"]) == 0
    (row,) = [r for r in json.loads(capsys.readouterr().out) if r["name"] == "rise"]
    held = [f["holds"] for f in report["findings"]].count(True)
    assert row["scores"][0]["scale"] == "tiny" and row["scores"][0]["held"] == held and "2512.23988" in row["paper"]


def test_it_is_listed_with_its_scales(capsys):
    assert main(["list", "studies", "--json"]) == 0
    (entry,) = [e for e in json.loads(capsys.readouterr().out) if e["name"] == "rise"]
    assert entry["scales"] == ["tiny", "small", "paper"] and "RISE" in entry["summary"]


def test_the_scales_are_what_they_are_called():
    assert rise.small() == DiscoverSettings()  # what `make demo` runs
    paper = rise.paper()
    assert "R1-Distill-Qwen-1.5B" in paper.model and paper.layers == (27,) and paper.sampling.n_traces == 500
    assert round(1536 * paper.naming.expansion) == round(1536 * paper.boundary.expansion) == 2048
    with pytest.raises(SettingError, match="Did you mean 'tiny'"):
        rise.run("tiney")


def test_the_prologue_says_what_would_refute_it():
    text = rise.__doc__
    assert all(f"({letter})" in text for letter in "abcdef")
    assert "2512.23988" in text and "Deviations\n1." in text and "refute" in text
