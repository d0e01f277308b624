"""overtone discover: the main job."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import tyro

from overtone.cli._parse import Shell
from overtone.discover.settings import DiscoverSettings

if TYPE_CHECKING:
    from rich.console import Console

RESUME = "What was finished is kept: run the same command with --resume to go on from there."


@dataclass(frozen=True, kw_only=True)
class Options(Shell):
    """Find a model's reasoning vectors without labels, name them, and prove that they steer it.

    Without --model this is the bundled reasoner. Writes report.json and report.html (open it in a browser) to --out.

    Example: overtone discover --model my-model/ --prompts prompts.jsonl --layers 12 20 --out runs/mine
    """

    settings: Annotated[DiscoverSettings, tyro.conf.arg(name="")] = field(default_factory=DiscoverSettings)
    out: Path = Path("runs/discover")
    """Folder of the run."""
    resume: bool = False
    """Reuse what an earlier run with the same settings finished in --out."""


def run(options: Options) -> dict[str, Any]:
    """The report as plain data (the content of report.json), and where it was written."""
    from overtone.discover.pipeline import discover

    report = discover(options.settings, options.out, resume=options.resume)
    return {**report.to_dict(), "written": [str(options.out / name) for name in ("report.json", "report.html")]}


def show(data: dict[str, Any], console: Console) -> None:
    """Findings, doses and separability as tables, then where the report lies."""
    from overtone.discover.terminal import tables

    for table in tables(data, console.width):
        console.print(table)
    console.print(f"\nreport: [bold]{data['written'][-1]}[/bold]  (numbers: {data['written'][0]})", soft_wrap=True)
