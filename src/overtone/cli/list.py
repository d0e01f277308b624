"""overtone list: the catalogue, and the kinds of sites."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from tyro.conf import Positional

from overtone.cli._parse import Shell

if TYPE_CHECKING:
    from rich.console import Console


@dataclass(frozen=True, kw_only=True)
class Options(Shell):
    """List what there is: every dictionary, edit, study, format or adapter of the catalogue, or the kinds of sites.

    Example: overtone list dictionaries --json
    """

    kind: Positional[Literal["dictionaries", "edits", "studies", "formats", "sites", "adapters"]]
    """What to list."""
    model: str = ""
    """With `sites`: name or folder of a model, to list the sites that it has, with their widths."""


def run(options: Options) -> list[dict[str, Any]]:
    """One plain dict per entry: name, paper, summary and what else it declares; sites have name, summary and width."""
    if options.kind == "sites":
        return _sites_of(options.model) if options.model else _kinds_of_sites()
    from overtone.core.catalogue import entries

    return [_plain(entry.to_dict()) for entry in entries(options.kind).values()]


def _kinds_of_sites() -> list[dict[str, Any]]:
    from overtone.core.sites import KINDS

    return [{"name": name if name == "embedding" else f"{name}.LAYER", "summary": text} for name, text in KINDS.items()]


def _sites_of(name: str) -> list[dict[str, Any]]:
    from overtone.cli._models import named_model
    from overtone.core.sites import KINDS

    model = named_model(name)
    return [{"name": str(site), "summary": KINDS[site.kind], "width": model.width(site)} for site in model.sites()]


def _plain(value: Any) -> Any:
    """What an entry declares, as JSON types: an object that is none of them by its fields or its name."""
    if isinstance(value, dict):
        return {str(k): _plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [_plain(v) for v in value]
    if value is None or isinstance(value, bool | int | float | str):
        return value
    return _plain(vars(value)) if hasattr(value, "__dict__") and not isinstance(value, type) else str(value)


def show(data: list[dict[str, Any]], console: Console) -> None:
    """A table: name, summary, paper or width."""
    from rich.table import Table

    extra = next((key for key in ("width", "paper") if any(row.get(key) for row in data)), None)
    table = Table(box=None, header_style="bold", padding=(0, 2, 0, 0))
    table.add_column("name", no_wrap=True, style="cyan")
    table.add_column("what it is")
    if extra:
        table.add_column(extra, style="dim")
    for row in data:
        table.add_row(row["name"], row["summary"], *([str(row.get(extra, ""))] if extra else []))
    console.print(table)
