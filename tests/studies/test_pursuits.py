"""The studies of MP-SAE, ITDA and SNMF at their smallest: they run, speak of every claim, and say what they compared.

Nothing is asked of the numbers: at this scale they show that the machinery runs.
"""

import json

import pytest

from overtone.cli import main
from overtone.core.catalogue import lookup
from overtone.core.errors import SettingError

CLAIMS = {"mp_sae": "abcde", "itda": "abcde", "snmf": "abcd"}


@pytest.mark.parametrize("name", list(CLAIMS))
def test_every_claim_has_its_letter_its_control_and_its_verdict(name, tmp_path, capsys):
    assert main(["study", name, "--scale", "tiny", "--runs", str(tmp_path), "--json", "--quiet"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert {f["id"][0] for f in report["findings"]} == set(CLAIMS[name])
    for f in report["findings"]:
        assert f["holds"] in (True, False, None) and f["measured"] is not None
        assert f["control"] is not None and f["control_name"], "every number has something beside it"
    told = report["provenance"]
    assert told["study"] == name and "arXiv" in told["paper"] and told["settings"]["seeds"] >= 2
    tables = [part for part in report.values() if isinstance(part, list) and part and "fvu" in part[0]]
    compared = [{row["name"] for row in table} for table in tables]
    assert all("batch_top_k" in names for names in compared) and any("top_k" in names for names in compared)


@pytest.mark.parametrize("name", list(CLAIMS))
def test_another_scale_is_refused_by_name(name):
    with pytest.raises(SettingError, match="Did you mean 'small'"):
        lookup("studies", name).thing("smal")
