"""The studies of GBA, PolySAE and vSAE at their smallest: they run from the command line, speak of every claim, and say
beforehand what would refute it. Nothing is asked of the numbers: at this scale they show that the machinery runs."""

import json

import pytest

from overtone.cli import main
from overtone.core.catalogue import lookup
from overtone.core.errors import SettingError
from overtone.studies import gba, poly_sae, variational_sae

STUDIES = {"gba": (gba, "abcdef", "2506.14002"), "poly_sae": (poly_sae, "abcdefg", "2602.01322"),
           "variational_sae": (variational_sae, "abcdef", "2509.22994")}  # fmt: skip


@pytest.mark.parametrize("name", STUDIES)
def test_every_claim_is_measured_beside_a_control(name, tmp_path, capsys):
    module, letters, paper = STUDIES[name]
    assert main(["study", name, "--scale", "tiny", "--runs", str(tmp_path), "--json", "--quiet"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert {f["id"][0] for f in report["findings"]} == set(letters)
    for finding in report["findings"]:
        assert finding["measured"] is not None and finding["holds"] in (True, False, None)
        assert finding["control_name"] or finding["id"] == "c.ceiling", f"{finding['id']} has no control"
        assert finding["n"] >= 1 and finding["n_of"] in ("seeds", "pairs of runs")
    tables = [value for key, value in report.items() if isinstance(value, list) and key != "findings"]
    assert len(tables) >= 2 and all(len({tuple(row) for row in table}) == 1 for table in tables), "rows of one shape"
    told = report["provenance"]
    assert paper in told["paper"] and (told["study"], told["scale"]) == (name, "tiny")
    assert told["settings"] == module.SCALES["tiny"].to_dict()


@pytest.mark.parametrize("name", STUDIES)
def test_the_prologue_says_what_would_refute_it_and_scales_are_listed(name):
    module, letters, paper = STUDIES[name]
    text = module.__doc__
    assert paper in text and all(text.count(f"({letter})") >= 2 for letter in letters)
    assert "Deviations\n1." in text and "would refute it, written before the first run" in text
    assert lookup("studies", name).facts["scales"] == ["tiny", "small", "paper"]
    with pytest.raises(SettingError, match="Did you mean 'tiny'"):
        module.run("tiney")
