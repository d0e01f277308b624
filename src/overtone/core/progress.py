"""Progress on long work: a bar on a terminal, a line now and then elsewhere, nothing when quiet."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Iterator
from typing import TypeVar

_Item = TypeVar("_Item")
QUIET = False  # set by the command line's --quiet and --json; library calls pass quiet= explicitly


def track(
    items: Iterable[_Item], label: str, *, total: int | None = None, quiet: bool | None = None
) -> Iterator[_Item]:
    """Yield items while showing how far along they are, with the time left; total defaults to len(items).

    quiet=None follows the process default, which the command line sets.
    """
    if total is None:
        total = len(items) if hasattr(items, "__len__") else None  # type: ignore[arg-type]
    if QUIET if quiet is None else quiet:
        yield from items
    elif sys.stderr.isatty():
        yield from _bar(items, label, total)
    else:
        yield from _lines(items, label, total)


def say(text: str, *, quiet: bool | None = None) -> None:
    """One line about what comes next, on standard error; nothing when quiet (None: the process default)."""
    if not (QUIET if quiet is None else quiet):
        sys.stderr.write(text.rstrip() + "\n")
        sys.stderr.flush()


def _bar(items: Iterable[_Item], label: str, total: int | None) -> Iterator[_Item]:
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True)) as progress:
        task = progress.add_task(label, total=total)
        for item in items:
            yield item
            progress.advance(task)


def _lines(items: Iterable[_Item], label: str, total: int | None, every_s: float = 5.0) -> Iterator[_Item]:
    started = last = time.monotonic()
    for done, item in enumerate(items, 1):
        yield item
        if time.monotonic() - last >= every_s or done == total:
            last = time.monotonic()
            of = f"/{total}" if total else ""
            sys.stderr.write(f"{label}: {done}{of} after {last - started:.0f} s\n")
            sys.stderr.flush()
