"""The studies of selections at their smallest: each runs, speaks of every claim of its prologue, and names its rivals.

Nothing is asked of the numbers: at this scale they show that the machinery runs. Some laws hold whatever the scale.
"""

import json
import re
from functools import cache

import pytest
import torch

from overtone.core.catalogue import lookup
from overtone.core.errors import CapabilityError, SettingError
from overtone.dictionaries.presets.g_sae import GSAE
from overtone.dictionaries.presets.top_k import TopK
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


def test_gradients_at_test_time_change_what_g_sae_knows_and_a_preset_without_them_takes_none():
    (row,) = [r for r in report("g_sae")["planted rows"] if r["name"] == g_sae.MUCH]
    assert len({row["knows"], row["knows, true gradient"], row["knows, drawn gradient"]}) == 3
    x = torch.randn(100, 8, generator=torch.Generator().manual_seed(0))
    plain, knowing = (preset.build(8, torch.Generator().manual_seed(0)) for preset in (TopK(16, k=2), GSAE(16, k=2)))
    knowing.start(x)
    assert not torch.equal(knowing.encode(x, {"g": x.sin()}).dense(), knowing.encode(x).dense())
    with pytest.raises(CapabilityError, match="states alone"):
        plain.encode(x, {"g": x.sin()})


def test_weights_of_the_norm_loss_are_the_papers_and_what_lies_beyond_is_told_apart():
    assert max(top_afa.LAMBDAS.values()) == 1 / 16 < min(top_afa.BEYOND.values())
    (found, *_) = [f for f in report("top_afa")["findings"] if f["id"][0] == "c"]
    assert all(f"lambda {name}:" in found["note"] for name in top_afa.LAMBDAS)
    assert found["note"].index("beyond the paper's range 1/8") > found["note"].index("lambda 1/16")


def test_the_energy_rule_counts_orthonormal_atoms_exactly():
    finding = next(f for f in report("top_afa")["findings"] if f["id"] == "b.0")
    assert finding["holds"] and finding["measured"] < 0.05
