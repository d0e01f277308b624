"""A lineup as one HTML page that needs nothing else: a drawn table, one row per preset and budget."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from typing import Any

PANEL, GAP, ROW, NAME = 128, 26, 26, 190  # pixels: width of a column's drawing, room beside it, height of a row


@dataclass(frozen=True)
class Column:
    """One drawn column: key in the standings, heading, meaning, whether less is better, how numbers are written."""

    key: str
    head: str
    says: str
    less: bool
    write: Callable[[float], str]


def percent(value: float) -> str:
    """A share as a percentage."""
    return f"{100 * value:.1f} %"


def short(value: float) -> str:
    """Three significant digits."""
    return f"{value:.3g}"


COLUMNS = (
    Column("fvu", "error", "share of the held-out variance that is missed", True, percent),
    Column("l0", "active latents", "per held-out row, logarithmic; the line is what was asked for", True, short),
    Column("dead_share", "dead latents", "of latents: active in no held-out row", True, percent),
    Column("stability", "stability", "mean cosine of matched atoms between seeds", False, short),
    Column("seconds", "seconds", "of one training, logarithmic", True, short),
    Column("matmul_units", "dense products", "of one training step; its encoder product is 1", True, short),
)  # fmt: skip
ENOUGH = 300  # updates after which kinds whose price is steered to a number of active latents are near it
LOGARITHMIC = {"l0", "seconds"}
TIED, MOST_BEST = 0.005, 2  # values this close share a place; no more than two are marked as best


def render(lineup: Mapping[str, Any], title: str = "Dictionaries side by side") -> str:
    """The page of a lineup's plain data (`Lineup.to_dict()`): a complete HTML document without scripts."""
    from jinja2 import Environment, PackageLoader, select_autoescape

    environment = Environment(
        loader=PackageLoader("overtone.evaluate.lineup", "assets"), autoescape=select_autoescape(["html"]),
        trim_blocks=True, lstrip_blocks=True,
    )  # fmt: skip
    style = (files("overtone.evaluate.lineup") / "assets" / "style.css").read_text(encoding="utf-8")
    groups = _groups(lineup["standings"])
    standings = [one for _, group in groups for one in group]
    panels = [_panel(column, groups, NAME + i * (PANEL + GAP)) for i, column in enumerate(COLUMNS)]
    lines = _lines(groups)
    return environment.get_template("page.html").render(
        title=title, style=style, lineup=lineup, standings=standings, panels=panels, row=ROW, lines=lines,
        updates=lineup["settings"]["n_tokens"] // lineup["settings"]["batch_rows"], enough=ENOUGH,
        heads=[(lines[i] - ROW, head) for i, head in _heads(groups)],
        width=NAME + len(COLUMNS) * (PANEL + GAP), height=max(lines) + ROW,
    )  # fmt: skip


Groups = Sequence[tuple[str, Sequence[Mapping[str, Any]]]]


def _groups(standings: Sequence[Mapping[str, Any]]) -> Groups:
    """Standings that can be compared with each other, under a heading: one group per budget, then those without."""
    by_budget: dict[int | None, list[Mapping[str, Any]]] = {}
    for one in standings:
        by_budget.setdefault(one["k"], []).append(one)
    last = "no budget: each finds its own number of active latents"
    return [(last if k is None else f"asked for {k} active latents per row", group) for k, group in by_budget.items()]


def _heads(groups: Groups) -> list[tuple[int, str]]:
    """Number of the first standing of each group, and the heading above it."""
    first, found = 0, []
    for head, group in groups:
        found.append((first, head))
        first += len(group)
    return found


def _lines(groups: Groups) -> list[int]:
    """Where each standing is drawn, in pixels from the top: a group has a heading and some room above it."""
    y, found = 34, list[int]()
    for _, group in groups:
        y += ROW + 6
        for _ in group:
            found.append(y)
            y += ROW
    return found


def _panel(column: Column, groups: Groups, left: float) -> dict[str, Any]:
    """Positions of one column's marks."""
    standings = [one for _, group in groups for one in group]
    triples = [_triple(one[column.key]) for one in standings]
    low, high = _range(column, [v for triple in triples for v in triple if v is not None])
    scale = math.log if column.key in LOGARITHMIC else float

    def x(value: float) -> float:
        return left + PANEL * (scale(min(max(value, low), high)) - scale(low)) / (scale(high) - scale(low))

    asked = [one["k"] for one in standings] if column.key == "l0" else [None] * len(standings)
    best = [mark for _, group in groups for mark in _best(column, group)]
    return {
        "column": column,
        "left": left,
        "marks": [
            None if value is None else {
                "x": x(value), "text": column.write(value), "best": first, "asked": None if k is None else x(k),
                "low": x(value if lo is None else lo), "high": x(value if hi is None else hi),
            }
            for (value, lo, hi), k, first in zip(triples, asked, best, strict=True)
        ],
    }  # fmt: skip


def _triple(value: Any) -> tuple[float | None, float | None, float | None]:
    """(value, low, high) of an estimate's plain data, or of a number."""
    if isinstance(value, Mapping):
        return value["value"], value["low"], value["high"]
    return value, None, None


def _range(column: Column, known: Sequence[float]) -> tuple[float, float]:
    """The two ends of a column's axis: from 0, but for what is logarithmic."""
    if not known:
        return 0.0, 1.0
    if column.key in LOGARITHMIC:
        positive = [v for v in known if v > 0] or [1e-3]
        return min(positive) / 1.2, max(*positive, min(positive) * 2) * 1.2
    most = max(known)
    return 0.0, 1.5 if column.key == "fvu" and most > 1.5 else most or 1.0


def _best(column: Column, group: Sequence[Mapping[str, Any]]) -> list[bool]:
    """Which of a group have the best value, or one whose interval meets that of the best; none where that says nothing:
    many share the place, or the value alone tells nothing, as an error without a budget."""
    costs = [_cost(column, one[column.key]) for one in group]
    known = [cost for cost in costs if cost is not None]
    if not known or column.key == "l0" or (column.key == "fvu" and group[0]["k"] is None):
        return [False] * len(costs)
    best, _, high = min(known)
    reach = max(high, best + TIED * max(abs(best), 1e-9))
    marks = [cost is not None and cost[1] <= reach for cost in costs]
    return marks if sum(marks) <= MOST_BEST else [False] * len(costs)


def _cost(column: Column, value: Any) -> tuple[float, float, float] | None:
    """(value, low, high), turned so that less is better; a number is its own interval."""
    middle, low, high = _triple(value)
    if middle is None:
        return None
    low, high = middle if low is None else low, middle if high is None else high
    return (middle, low, high) if column.less else (-middle, -high, -low)
