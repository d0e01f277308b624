"""Write the page of a study from its last report: docs/studies/NAME.md from runs/studies/NAME-small/report.json.

Example: overtone study itda && python tools/study_page.py itda
"""

from __future__ import annotations

import argparse
import inspect
import json
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
MOST_ROWS = 60  # of a table; longer ones stay in the report
VERDICT = {True: "holds", False: "**does not hold**", None: "not testable here"}


def page(name: str, report: dict[str, Any], prologue: str) -> str:
    """The page as Markdown: what was done, each finding with its control, the tables of the report, provenance."""
    told = report["provenance"]
    lines = [
        f"# Study: {report['title']}",
        "",
        f"`overtone study {name} --scale {told['scale']}`. {told['paper']}.",
        "",
    ]
    lines += ["## What was asked, and how", "", "```text", prologue.strip(), "```", "", "## Findings", ""]
    rows = [
        [f["id"], f["claim"], f["paper"] or "", _measured(f), _control(f), VERDICT[f["holds"]], f["note"] or ""]
        for f in report["findings"]
    ]
    lines += _table(["", "claim", "paper", "measured [95 %]", "control", "verdict", "detail"], rows)
    if any(f["id"].endswith(".text") for f in report["findings"]):
        lines += ["", "`.text`: the same on states of a sentence encoder over real text; Provenance says which."]
    for title, section in report.items():
        if title != "findings" and _fits(section):
            lines += [
                "",
                f"## {title.capitalize()}",
                "",
                *_table(list(section[0]), [list(r.values()) for r in section]),
            ]
    lines += ["", "## Provenance", "", *[f"- {key}: {_plain(value)}" for key, value in told.items()]]
    return "\n".join(lines) + "\n"


def _fits(section: Any) -> bool:
    """Whether a section is a short table of plain values."""
    rows = section if isinstance(section, list) and len(section) <= MOST_ROWS else []
    flat = (isinstance(row, dict) and not any(isinstance(v, dict | list) for v in row.values()) for row in rows)
    return bool(rows) and all(flat)


def _measured(finding: dict[str, Any]) -> str:
    interval = finding["interval"]
    span = f" [{_plain(interval[0])}, {_plain(interval[1])}]" if interval else ""
    return f"{_plain(finding['measured'])}{span} {finding['unit']} (n = {finding['n']} {finding['n_of']})"


def _control(finding: dict[str, Any]) -> str:
    return f"{_plain(finding['control'])} ({finding['control_name']})" if finding["control_name"] else ""


def _table(head: list[str], rows: list[list[Any]]) -> list[str]:
    def line(cells: list[Any]) -> str:
        return "| " + " | ".join(_plain(c).replace("|", "\\|") for c in cells) + " |"

    return [line(head), "|" + "---|" * len(head), *map(line, rows)]


def _plain(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.3g}"
    return "" if value is None else value if isinstance(value, str) else json.dumps(value)


def main() -> None:
    """Write the page of one study."""
    from overtone.core.catalogue import lookup

    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0] if __doc__ else "")
    parser.add_argument("name")
    parser.add_argument("--scale", default="small")
    parser.add_argument("--runs", type=Path, default=Path("runs/studies"))
    options = parser.parse_args()
    report = json.loads((options.runs / f"{options.name}-{options.scale}" / "report.json").read_text())
    module = inspect.getmodule(lookup("studies", options.name).thing)
    target = ROOT / "docs" / "studies" / f"{options.name}.md"
    target.parent.mkdir(exist_ok=True)
    target.write_text(page(options.name, report, module.__doc__ or "" if module else ""))
    print(target)


if __name__ == "__main__":
    main()
