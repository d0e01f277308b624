"""Reports: named claims with numbers, intervals, controls and provenance, as one JSON shape."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, field
from typing import Any


@dataclass(frozen=True)
class Finding:
    """One claim and what was measured for it.

    id: stable dotted name; claim: in words; paper: the published figure or "" ; measured: our number (None if it could
    not be measured, then `note` says why); unit; better: "higher", "lower" or "" (neither); interval: (low, high) at
    95 %
    or None; control: the number that the effect must beat, with `control_name` saying what it is; n: sample size, in
    units
    that `n_of` names; holds: True, False, or None when the claim was not testable here.
    """

    id: str
    claim: str
    measured: float | None
    unit: str
    n: int
    holds: bool | None
    paper: str = ""
    better: str = ""
    interval: tuple[float, float] | None = None
    control: float | None = None
    control_name: str = ""
    n_of: str = "traces"
    note: str = ""

    def to_dict(self) -> dict[str, Any]:
        """Plain data with NaN and infinity as null."""
        return {k: finite(v) for k, v in asdict(self).items()}


@dataclass(frozen=True)
class Report:
    """Findings of one run, its provenance (settings, seed, versions, sources) and free sections of plain data
    (tables and curves that the HTML page and the terminal show)."""

    title: str
    findings: tuple[Finding, ...]
    provenance: dict[str, Any]
    sections: dict[str, Any] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """Plain data: title, findings, provenance, then the sections."""
        rest = {k: finite(v) for k, v in self.sections.items()}
        return {
            "title": self.title,
            "findings": [f.to_dict() for f in self.findings],
            "provenance": self.provenance,
            **rest,
        }

    def finding(self, id: str) -> Finding:
        """The finding of an id. Raises KeyError listing the known ids."""
        for f in self.findings:
            if f.id == id:
                return f
        raise KeyError(f"{id!r}; known findings: {', '.join(f.id for f in self.findings)}")


def finite(value: Any) -> Any:
    """Plain data with numbers that are not finite as None, as JSON wants it."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {str(k): finite(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [finite(v) for v in value]
    return value
