"""overtone study: one paper's claims, re-run."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from tyro.conf import Positional

from overtone.cli._parse import Shell

if TYPE_CHECKING:
    from rich.console import Console

RESUME = "What was finished is kept: run the same command again to go on from there."


@dataclass(frozen=True, kw_only=True)
class Options(Shell):
    """Re-run one paper's claims on small data: what the paper says, what we measure, and whether it holds.

    Example: overtone study rise --scale tiny --json
    """

    name: Positional[str]
    """Name of the study; `overtone list studies` knows them."""
    scale: Literal["tiny", "small", "paper"] = "small"
    """tiny: seconds, proves only that it runs; small: minutes on two cores; paper: the real models and sizes."""
    runs: Path = Path("runs/studies")
    """Folder of the studies' runs, a folder each, with their last report for `overtone studies`."""


def run(options: Options) -> dict[str, Any]:
    """The study's report as plain data; a copy is kept at RUNS/NAME-SCALE/report.json."""
    from overtone.core.artifacts import write_json
    from overtone.core.catalogue import lookup

    folder = options.runs / f"{options.name}-{options.scale}"
    report = lookup("studies", options.name).thing(options.scale, folder).to_dict()
    write_json(folder / "report.json", report)
    return report


def show(data: dict[str, Any], console: Console) -> None:
    """The findings, and the tables of whatever else the report holds."""
    from overtone.discover.terminal import tables

    for table in tables(data, console.width):
        console.print(table)
