"""The page of a study says every finding, its verdict and its tables."""

import importlib.util
from dataclasses import replace
from pathlib import Path

from overtone.core.report import Finding, Report

TOOL = Path(__file__).parents[2] / "tools" / "study_page.py"


def test_a_page_holds_prologue_findings_verdicts_and_tables():
    spec = importlib.util.spec_from_file_location("study_page", TOOL)
    tool = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(tool)
    findings = (
        Finding("a.one", "it | works", 0.25, "share", 5, True, interval=(0.2, 0.3), control=0.5, control_name="chance"),
        Finding("b.two", "it fails", None, "share", 5, False, paper="0.9", note="nothing was found"),
    )
    about = {"study": "made", "scale": "small", "paper": "A paper, arXiv 1"}
    report = Report("Made", findings, about, {"errors": [{"name": "x", "fvu": 0.123456}]}).to_dict()
    text = tool.page("made", report, "What would refute it: nothing.")
    assert "overtone study made --scale small" in text and "What would refute it" in text
    one, two = (line for line in text.splitlines() if "a.one" in line or "b.two" in line)
    assert "0.25 [0.2, 0.3] share" in one and "0.5 (chance)" in one and "| holds |" in one and "it \\| works" in one
    assert "**does not hold**" in two and "nothing was found" in two
    assert "sentence encoder" not in text, "nothing was run on it"
    assert "## Errors" in text and "| x | 0.123 |" in text
    on_text = Report("Made", (replace(findings[0], id="a.one.text"),), about).to_dict()
    assert "sentence encoder" in tool.page("made", on_text, "")
