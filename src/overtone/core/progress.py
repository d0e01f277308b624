"""Progress on long work: a bar on a terminal, a line now and then elsewhere, nothing when quiet."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
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


def track_costs(
    items: Sequence[_Item], label: Callable[[_Item], str], cost: Callable[[_Item], float], *, quiet: bool | None = None
) -> Iterator[_Item]:
    """Yield items that differ in cost, saying of each what it is when it begins, and the time left by their costs.

    label: what an item is called; cost: seconds that it is expected to take. quiet: as for `track`.
    """
    if not items or (QUIET if quiet is None else quiet):
        yield from items
    elif sys.stderr.isatty():
        yield from _costly_bar(items, label, cost)
    else:
        yield from _costly_lines(items, label, cost)


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


def _costly_bar(
    items: Sequence[_Item], label: Callable[[_Item], str], cost: Callable[[_Item], float]
) -> Iterator[_Item]:
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    columns = TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn(), TextColumn("{task.fields[left]}")
    with Progress(*columns, console=Console(stderr=True)) as progress:
        total = sum(map(cost, items))
        task = progress.add_task("", total=total, left="")
        for number, item in enumerate(items, 1):
            spent, elapsed = progress.tasks[task].completed, progress.tasks[task].elapsed or 0.0
            left = _left(elapsed, spent, total)
            progress.update(task, description=f"{label(item)} ({number}/{len(items)})", left=left)
            yield item
            progress.advance(task, cost(item))
        progress.update(task, left="")


def _costly_lines(
    items: Sequence[_Item], label: Callable[[_Item], str], cost: Callable[[_Item], float], every_s: float = 5.0
) -> Iterator[_Item]:
    started, last, spent, total = time.monotonic(), -every_s, 0.0, sum(map(cost, items))
    for number, item in enumerate(items, 1):
        now = time.monotonic() - started
        if now - last >= every_s:
            last = now
            left = _left(now, spent, total)
            sys.stderr.write(f"{label(item)}: {number}/{len(items)} after {now:.0f} s, {left}\n")
            sys.stderr.flush()
        yield item
        spent += cost(item)


def _left(elapsed: float, spent: float, total: float) -> str:
    """The time left, by how long the costs so far took; at first as the costs say."""
    return f"about {(elapsed / spent if spent else 1.0) * (total - spent):.0f} s left"


def _lines(items: Iterable[_Item], label: str, total: int | None, every_s: float = 5.0) -> Iterator[_Item]:
    started = last = time.monotonic()
    for done, item in enumerate(items, 1):
        yield item
        if time.monotonic() - last >= every_s or done == total:
            last = time.monotonic()
            of = f"/{total}" if total else ""
            sys.stderr.write(f"{label}: {done}{of} after {last - started:.0f} s\n")
            sys.stderr.flush()
