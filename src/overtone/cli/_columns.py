"""Tables of numbers for people."""

from __future__ import annotations

from typing import Any


def table_of(*heads: str) -> Any:
    """A table whose first column names things, and whose others hold numbers."""
    from rich.table import Table

    table = Table(box=None, padding=(0, 2, 0, 0))
    table.add_column("", no_wrap=True)
    for head in heads:
        table.add_column(head, justify="right", no_wrap=True)
    return table


def written(value: Any, places: int, times: float = 1.0, spread: bool = False) -> str:
    """A number, or an estimate with half its interval, with so many decimal places."""
    if isinstance(value, dict):
        half = (
            "" if value["low"] is None or not spread else f" ±{times * (value['high'] - value['low']) / 2:.{places}f}"
        )
        return f"{written(value['value'], places, times)}{half}"
    return "–" if value is None else f"{times * value:.{places}f}"
