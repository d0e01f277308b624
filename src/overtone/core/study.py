"""What every study shares: settings by scale, its entry in the catalogue, and the report it ends in."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import wraps
from pathlib import Path
from typing import Any, TypeVar

from overtone.core.catalogue import enrol
from overtone.core.errors import SettingError, nearest
from overtone.core.report import Finding, Report
from overtone.core.settings import Settings

_Size = TypeVar("_Size", bound=Settings)
_Value = TypeVar("_Value")


@dataclass(frozen=True)
class Found:
    """What a study, or a part of one, found. findings; tables: sections of plain data by title; told: lines of
    provenance by title."""

    findings: tuple[Finding, ...]
    tables: dict[str, Any] = field(default_factory=dict)
    told: dict[str, Any] = field(default_factory=dict)


def study(
    name: str, title: str, *, paper: str, scales: Mapping[str, _Size]
) -> Callable[[Callable[[_Size], Found]], Callable[..., Report]]:
    """Decorator that makes a study of `run(size)`, and enters it in the catalogue.

    What it makes is called with a scale ("tiny", "small", "paper"; by default "small"), and returns the report with
    title, paper and settings. Nothing is kept: a folder given as `out` is not used. It raises SettingError for an
    unknown scale.
    """

    def make(run: Callable[[_Size], Found]) -> Callable[..., Report]:
        @wraps(run)
        def at(scale: str = "small", out: str | Path = "") -> Report:
            size = at_scale(scale, scales)
            found = run(size)
            told = {"study": name, "scale": scale, "paper": paper, "settings": size.to_dict()}
            return Report(title, found.findings, told | found.told, found.tables)

        return enrol("studies", name, paper=paper, scales=list(scales))(at)

    return make


def at_scale(scale: str, scales: Mapping[str, _Value]) -> _Value:
    """What belongs to a scale. Raises SettingError for an unknown one, naming the nearest."""
    if scale not in scales:
        raise SettingError(f"scale={scale!r}.{nearest(scale, scales)} Use {', '.join(scales)}.")
    return scales[scale]
