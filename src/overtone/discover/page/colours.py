"""Colours of behaviours: fixed by name, told apart with the common kinds of colour blindness, for light and dark pages.

The hues are those of Okabe and Ito (2008), "Color universal design", darkened on light and lightened on dark ground;
yellow is left out, as it does not carry on white.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

FIXED: dict[str, tuple[str, str]] = {
    "planning": ("#3a9bd1", "#6cc0ee"),
    "execution": ("#6a7482", "#808b99"),
    "reflection": ("#0067a8", "#3f9be0"),
    "backtracking": ("#c95200", "#f07f35"),
    "alternative": ("#c88700", "#f0b53a"),
    "confidence": ("#00896a", "#2dbd98"),
    "conclusion": ("#c462a9", "#ffa6d6"),
    "transition": ("#8a7a00", "#c9b93a"),
    "unknown": ("#94928a", "#7c7b80"),
}
"""Behaviour -> (colour on a light page, on a dark page)."""

OTHERS = (
    ("#6a51a3", "#a48fd8"),
    ("#8c5a2b", "#c79262"),
    ("#14808a", "#4fb9c2"),
    ("#a8325e", "#e0759b"),
    ("#4f7a1e", "#93bf5b"),
)
"""Colours of all other names, in order of appearance, from the start again when there are more."""

NAMED = {"behaviour", "label"}  # keys whose value is a behaviour's name
KEYED = {"counts", "rates", "profile", "shares"}  # keys whose value maps behaviours to numbers


def behaviours(report: Mapping[str, Any]) -> list[str]:
    """Every behaviour that a report's plain data names, findings and provenance left aside: those with a fixed colour
    first, in the order of FIXED, then the rest in order of appearance."""
    parts = [value for key, value in report.items() if key not in ("findings", "provenance")]
    seen = dict.fromkeys(name for name in _names(parts) if name)
    return [name for name in FIXED if name in seen] + [name for name in seen if name not in FIXED]


def _names(data: Any) -> Iterator[str]:
    pairs = data.items() if isinstance(data, Mapping) else ((None, item) for item in data)
    for key, value in pairs:
        if key in NAMED and isinstance(value, str):
            yield value
        elif key in KEYED and isinstance(value, Mapping):
            yield from value
        elif isinstance(value, Mapping | list | tuple):
            yield from _names(value)


def colours(names: Iterable[str]) -> dict[str, tuple[str, str]]:
    """Name -> (light, dark) colour, one entry per name, in their order."""
    others = 0
    chosen = {}
    for name in names:
        if name in FIXED:
            chosen[name] = FIXED[name]
        else:
            chosen[name] = OTHERS[others % len(OTHERS)]
            others += 1
    return chosen
