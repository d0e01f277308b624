"""A lineup as one HTML page that needs nothing else: a drawn table, one row per preset and budget."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from typing import Any

PANEL, GAP, ROW = 128, 18, 26  # pixels: width of a column's drawing, room beside it, height of a row


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
    Column("l0", "active latents", "per held-out row; the line is what was asked for", True, short),
    Column("dead_share", "dead latents", "of latents: active in no held-out row", True, percent),
    Column("stability", "stability", "mean cosine of matched atoms between seeds", False, short),
    Column("seconds", "seconds", "processor time of one training, logarithmic", True, short),
    Column("matmul_units", "dense products", "of one training step; its encoder product is 1", True, short),
)  # fmt: skip
LOGARITHMIC = {"seconds"}


def render(lineup: Mapping[str, Any], title: str = "Dictionaries side by side") -> str:
    """The page of a lineup's plain data (`Lineup.to_dict()`): a complete HTML document without scripts."""
    from jinja2 import Environment, PackageLoader, select_autoescape

    environment = Environment(
        loader=PackageLoader("overtone.evaluate.lineup", "assets"), autoescape=select_autoescape(["html"]),
        trim_blocks=True, lstrip_blocks=True,
    )  # fmt: skip
    style = (files("overtone.evaluate.lineup") / "assets" / "style.css").read_text(encoding="utf-8")
    standings = lineup["standings"]
    panels = [_panel(column, standings, 190 + i * (PANEL + GAP)) for i, column in enumerate(COLUMNS)]
    return environment.get_template("page.html").render(
        title=title, style=style, lineup=lineup, standings=standings, panels=panels, row=ROW, panel=PANEL,
        width=190 + len(COLUMNS) * (PANEL + GAP), height=ROW * len(standings) + 56,
    )  # fmt: skip


def _panel(column: Column, standings: Sequence[Mapping[str, Any]], left: float) -> dict[str, Any]:
    """Positions of one column's marks."""
    triples = [_triple(one[column.key]) for one in standings]
    known = [v for triple in triples for v in triple if v is not None]
    low, high = _range(column, known)
    scale = math.log if column.key in LOGARITHMIC else float

    def x(value: float) -> float:
        return left + PANEL * (scale(min(max(value, low), high)) - scale(low)) / (scale(high) - scale(low))

    asked = [one["k"] for one in standings] if column.key == "l0" else [None] * len(standings)
    best = _best(column, [triple[0] for triple in triples])
    return {
        "column": column,
        "left": left,
        "marks": [
            {
                "x": x(value), "low": None if lo is None else x(lo), "high": None if hi is None else x(hi),
                "text": column.write(value), "best": value == best, "asked": None if k is None else x(k),
            }
            if value is not None
            else None
            for (value, lo, hi), k in zip(triples, asked, strict=True)
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


def _best(column: Column, values: Sequence[float | None]) -> float | None:
    known = [v for v in values if v is not None]
    if not known or column.key == "l0":
        return None
    return min(known) if column.less else max(known)
