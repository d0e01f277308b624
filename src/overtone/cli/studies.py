"""overtone studies: the scoreboard."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from overtone.cli._parse import Shell

if TYPE_CHECKING:
    from rich.console import Console


@dataclass(frozen=True, kw_only=True)
class Options(Shell):
    """Every study, its paper, and how many of its claims held when it was last run here, per scale.

    Example: overtone studies --json
    """

    runs: Path = Path("runs/studies")
    """Folder in which `overtone study` keeps the last report of every study."""


def run(options: Options) -> list[dict[str, Any]]:
    """Per study: name, paper, summary, and the scores (scale, held, failed, untestable) of existing reports."""
    from overtone.core.catalogue import entries

    return [
        {"name": name, "paper": entry.paper, "summary": entry.summary, "scores": list(_scores(options.runs, name))}
        for name, entry in entries("studies").items()
    ]


def _scores(runs: Path, name: str) -> Iterator[dict[str, Any]]:
    for scale in ("tiny", "small", "paper"):
        path = runs / f"{name}-{scale}" / "report.json"
        if path.exists():
            holds = [finding["holds"] for finding in json.loads(path.read_text(encoding="utf-8"))["findings"]]
            counts = {"held": holds.count(True), "failed": holds.count(False), "untestable": holds.count(None)}
            yield {"scale": scale, **counts}


def show(data: list[dict[str, Any]], console: Console) -> None:
    """A table: study, paper, score per scale."""
    from rich.table import Table

    table = Table(box=None, header_style="bold", padding=(0, 2, 0, 0))
    for name in ("study", "paper", "claims that held"):
        table.add_column(name, no_wrap=name == "study")
    for row in data:
        scores = [f"{s['scale']}: {s['held']} of {s['held'] + s['failed']}{_rest(s)}" for s in row["scores"]]
        table.add_row(row["name"], row["paper"], ", ".join(scores) or "[dim]not run here[/dim]")
    console.print(table)


def _rest(score: dict[str, Any]) -> str:
    return f" ({score['untestable']} not testable)" if score["untestable"] else ""
