"""The tables that a finished run prints: findings, doses and separability; below `WIDE` columns they leave some out.

They read the same plain data as the page (see page/README.md), so that terminal, page and report.json cannot disagree.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from overtone.discover.page.doses import with_one_band
from overtone.discover.page.words import interval, number, percent, signed

if TYPE_CHECKING:
    from rich.table import Table

WIDE = 96
"""Columns of a terminal from which on nothing is left out."""

VERDICT = {True: "[green]yes[/green]", False: "[red]no[/red]", None: "[dim]not testable[/dim]"}


def tables(report: Mapping[str, Any], width: int = WIDE) -> Iterator[Table]:
    """Rich tables of whatever the report holds, for a terminal of `width` columns: findings, then doses, then AUROC."""
    for key, make in (("findings", findings_table), ("doses", dose_table), ("auroc", auroc_table)):
        if report.get(key):
            yield make(report[key], wide=width >= WIDE)


def _table(title: str, *columns: tuple[str, str]) -> Table:
    """An empty table; a column is (header, "left" or "right"). Cells never break, so that numbers stay whole."""
    from rich import box
    from rich.table import Table

    table = Table(
        title=title, title_justify="left", title_style="bold", header_style="dim", box=box.SIMPLE_HEAD, pad_edge=False
    )
    for header, side in columns:
        table.add_column(header, justify="right" if side == "right" else "left", no_wrap=True)
    return table


def findings_table(findings: list[Mapping[str, Any]], wide: bool = True) -> Table:
    """Claim, ours with interval (if wide), control, whether it holds; the paper's figure stands below the claim."""
    spread = (("95 % interval", "right"),) if wide else ()
    table = _table(
        "Findings", ("claim", "left"), ("measured", "right"), *spread, ("control", "right"), ("holds", "left")
    )
    table.columns[0].no_wrap = False
    for f in findings:
        paper = f"\n[dim]paper: {_plain(f['paper'])}[/dim]" if f.get("paper") else ""
        measured = f"{number(f['measured'])} [dim]{_plain(f['unit'])}[/dim]" if f.get("measured") is not None else "–"
        interval_of = [_plain(interval(*(f.get("interval") or (None, None))))] if wide else []
        table.add_row(
            _plain(f["claim"]) + paper, measured, *interval_of, number(f.get("control")), VERDICT[f.get("holds")]
        )
    return table


def dose_table(doses: list[Mapping[str, Any]], wide: bool = True) -> Table:
    """Per vector and strength: share of its behaviour's steps, steered and under random directions, and the rest."""
    right = ("strength", "share", "random", "accuracy", "tokens", *(("steps", "arithmetic", "KL") if wide else ()))
    table = _table("Dose and response", ("vector", "left"), *((name, "right") for name in right))
    for curve in map(with_one_band, doses):
        series = {
            s["role"]: {p["strength"]: p for p in s["points"]}
            for s in curve["series"]
            if s["role"] in ("steered", "random")
        }
        name = curve["behaviour"] + ("" if curve.get("edit", "add") == "add" else f", {curve['edit']}")
        for i, (strength, point) in enumerate(sorted(series.get("steered", {}).items())):
            row = _dose_row(curve["behaviour"], point, series.get("random", {}).get(strength))
            table.add_row("" if i else _plain(name), signed(strength), *row[: len(right) - 1])
        table.add_section()
    return table


def _dose_row(behaviour: str, point: Mapping[str, Any], random: Mapping[str, Any] | None) -> list[str]:
    def own(at: Mapping[str, Any] | None, key: str) -> Any:
        return (((at or {}).get(key) or {}).get(behaviour) or {}).get("value")

    def of(key: str) -> Any:
        return (point.get(key) or {}).get("value")

    return [
        f"[bold]{percent(own(point, 'rates'))}[/bold]",
        percent(own(random, "rates")),
        percent(of("accuracy")),
        _fixed(of("tokens"), 0),
        _fixed(own(point, "counts"), 2),
        percent(of("validity")),
        _fixed(of("kl"), 2),
    ]


def auroc_table(rows: list[Mapping[str, Any]], wide: bool = True) -> Table:
    """Per behaviour and split: AUROC of the best single latent, with its interval if wide, and of every control."""
    controls = list(dict.fromkeys(name for row in rows for name in row.get("controls") or {}))
    ours = (("latent", "left"), ("AUROC", "right"), ("95 %", "right")) if wide else (("AUROC", "right"),)
    theirs = ((name.replace(" ", "\n"), "right") for name in controls)
    title = "Best single latent, AUROC on held-out data"
    table = _table(title, ("behaviour", "left"), ("held out", "left"), *ours, *theirs)
    for i, row in enumerate(rows):
        if i and row["split"] != rows[i - 1]["split"]:
            table.add_section()
        latent = f"{row.get('site') or ''} #{row['latent']}" if row.get("latent") is not None else "–"
        found = [_fixed((row["controls"].get(name) or {}).get("value"), 3) for name in controls]
        best = row["auroc"]
        spread = _plain(interval(best.get("low"), best.get("high"), lambda v: _fixed(v, 3)))
        cells = [latent, _fixed(best["value"], 3), spread] if wide else [_fixed(best["value"], 3)]
        table.add_row(_plain(row["behaviour"]), _plain(row["split"]), *cells, *found)
    return table


def _fixed(value: Any, places: int) -> str:
    """A number with that many decimals, so that a column lines up; "–" for None."""
    return f"{value:.{places}f}".replace("-", "−") if isinstance(value, int | float) else "–"


def _plain(text: Any) -> str:
    """Text that rich prints as it is: no bracket of it is markup."""
    from rich.markup import escape

    return escape(str(text)).replace("\u202f", " ")
