"""The studies of selections at their smallest: each runs, speaks of every claim of its prologue, and names its rivals.

Nothing is asked of the numbers: at this scale they show that the machinery runs. Some laws hold whatever the scale.
"""

import json
import re
from functools import cache

import pytest

from overtone.core.catalogue import lookup
from overtone.core.errors import SettingError
from overtone.studies import abs_topk, feature_choice, g_sae, top_afa

STUDIES = {"feature_choice": feature_choice, "abs_topk": abs_topk, "top_afa": top_afa, "g_sae": g_sae}


@cache
def report(name):
    return lookup("studies", name).thing("tiny").to_dict()


@pytest.mark.parametrize("name", STUDIES)
def test_every_claim_of_the_prologue_has_a_finding_with_its_shape(name):
    told = report(name)
    letters = set(re.findall(r"^\(([a-z])\)", STUDIES[name].__doc__, re.MULTILINE))
    assert letters >= set("abc") and {f["id"][0] for f in told["findings"]} == letters
    for f in told["findings"]:
        assert f["holds"] in (True, False, None) and f["unit"] and f["measured"] is not None
    assert len({f["id"] for f in told["findings"]}) == len(told["findings"])
    assert "refute" in STUDIES[name].__doc__ and json.dumps(told)


@pytest.mark.parametrize("name", STUDIES)
def test_rivals_have_equal_budgets_and_the_run_can_be_repeated(name):
    told = report(name)
    settings = STUDIES[name].SCALES["tiny"]
    assert told["provenance"]["settings"] == json.loads(json.dumps(settings.to_dict()))
    assert told["provenance"]["scale"] == "tiny" and "arXiv" in told["provenance"]["paper"]
    tables = [section for title, section in told.items() if isinstance(section, list) and title != "findings"]
    assert any({"top_k", "batch_top_k"} <= {row.get("name") for row in table} for table in tables)
    assert all(row["seeds"] == settings.seeds for table in tables for row in table if "seeds" in row)


@pytest.mark.parametrize("name", STUDIES)
def test_an_unknown_scale_is_refused(name):
    with pytest.raises(SettingError, match="Did you mean 'tiny'"):
        STUDIES[name].run("tiney")


def test_presets_without_gradients_have_the_same_codes_in_both_protocols():
    for section in ("planted rows", "residual.5"):
        (row,) = [r for r in report("g_sae")[section] if r["name"] == "top_k"]
        assert row["knows"] == row["knows, true gradient"] == row["knows, drawn gradient"]


def test_the_energy_rule_counts_orthonormal_atoms_exactly():
    finding = next(f for f in report("top_afa")["findings"] if f["id"] == "b.0")
    assert finding["holds"] and finding["measured"] < 0.05
