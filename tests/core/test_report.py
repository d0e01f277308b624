"""Reports are plain JSON, with nothing infinite in them."""

import json

import pytest

from overtone.core.report import Finding, Report

FINDING = Finding("c.x", "it moves", 2.0, "ratio", 30, True, interval=(1.5, float("inf")), control=float("nan"))


def test_a_report_is_json_without_nan():
    data = Report("t", (FINDING,), {"seed": 1}, {"curve": [1.0, float("nan")]}).to_dict()
    text = json.dumps(data, allow_nan=False)
    assert json.loads(text)["findings"][0]["interval"] == [1.5, None]
    assert data["curve"] == [1.0, None]


def test_findings_carry_the_contracted_keys():
    assert {"id", "claim", "paper", "measured", "unit", "interval", "control", "n", "holds"} <= set(FINDING.to_dict())


def test_a_finding_is_found_by_id_or_the_known_ids_are_listed():
    report = Report("t", (FINDING,), {})
    assert report.finding("c.x") is FINDING
    with pytest.raises(KeyError, match=r"c\.x"):
        report.finding("c.y")
