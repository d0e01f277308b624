"""Dose curves as page and terminal read them: random directions joined into one band, and each curve in a sentence.

All on the plain data of `DoseCurve`; only ratios and ranges of its own numbers are formed here.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

Plain = Mapping[str, Any]


def with_one_band(curve: Plain) -> dict[str, Any]:
    """The curve with all its series of role "random" joined into one: at each strength their mean, and the range from
    the lowest lower end to the highest upper end of their intervals."""
    random = [s for s in curve["series"] if s["role"] == "random"]
    if len(random) < 2:
        return dict(curve)
    joined = {"name": f"{len(random)} random directions", "role": "random", "points": _joined_points(random)}
    return {**curve, "series": [*(s for s in curve["series"] if s["role"] != "random"), joined]}


def _joined_points(series: Sequence[Plain]) -> list[dict[str, Any]]:
    by_strength: dict[float, list[Plain]] = {}
    for one in series:
        for point in one["points"]:
            by_strength.setdefault(point["strength"], []).append(point)
    return [_joined(points) for _, points in sorted(by_strength.items())]


def _joined(points: Sequence[Plain]) -> dict[str, Any]:
    """One point of several: keys as in DosePoint."""
    found: dict[str, Any] = {"strength": points[0]["strength"]}
    for key in points[0]:
        parts = [point[key] for point in points if point.get(key)]
        if key in ("counts", "rates"):
            names = dict.fromkeys(name for part in parts for name in part)
            found[key] = {name: _range(part.get(name) for part in parts) for name in names}
        elif key != "strength":
            found[key] = _range(parts) if parts else None
    return found


def _range(estimates: Iterable[Plain | None]) -> dict[str, float | None]:
    known = [e for e in estimates if e and e.get("value") is not None]
    values = [e["value"] for e in known]
    ends = [end for e in known for end in (e["value"], e.get("low"), e.get("high")) if end is not None]
    mean = sum(values) / len(values) if values else None
    return {"value": mean, "low": min(ends, default=None), "high": max(ends, default=None)}


def cross_effects(doses: Iterable[Plain]) -> list[dict[str, Any]]:
    """What each added vector does to each behaviour at its largest strength: rows of {vector, strength, cells}; a cell
    is {behaviour, ratio}, the ratio of shares to those at strength 0, None where that cannot be said."""
    rows = []
    for curve in doses:
        points = _points(curve, "steered")
        if curve.get("edit", "add") == "add" and 0 in points and len(points) > 1:
            top = max(points)
            rates = {name: points[at].get("rates") or {} for name, at in (("top", top), ("base", 0))}
            cells = [{"behaviour": b, "ratio": _ratio(rates["top"].get(b), e)} for b, e in rates["base"].items()]
            rows.append({"vector": curve["behaviour"], "strength": top, "cells": cells})
    return rows


def span(curve: Plain, key: str = "rates") -> dict[str, Any] | None:
    """The curve in numbers; None without two known ends: {low, high: strengths; at_low, at_high: its behaviour's rate
    or count there; ratio of the two; random: largest ratio between two strengths of a random direction}."""
    own = _values(curve, "steered", key)
    if len(own) < 2 or not own[min(own)]:
        return None
    low, high = min(own), max(own)
    random = [_largest(_own_values(s, curve["behaviour"], key)) for s in curve["series"] if s["role"] == "random"]
    return {
        "low": low, "high": high, "at_low": own[low], "at_high": own[high], "ratio": own[high] / own[low],
        "random": max((r for r in random if r is not None), default=None),
    }  # fmt: skip


def _largest(values: Mapping[float, float]) -> float | None:
    known = [v for v in values.values() if v > 0]
    return max(known) / min(known) if len(known) > 1 else None


def _points(curve: Plain, role: str) -> dict[float, Plain]:
    return {p["strength"]: p for s in curve["series"] if s["role"] == role for p in s["points"]}


def _values(curve: Plain, role: str, key: str) -> dict[float, float]:
    return next((_own_values(s, curve["behaviour"], key) for s in curve["series"] if s["role"] == role), {})


def _own_values(series: Plain, behaviour: str, key: str) -> dict[float, float]:
    found = {p["strength"]: ((p.get(key) or {}).get(behaviour) or {}).get("value") for p in series["points"]}
    return {strength: value for strength, value in found.items() if value is not None}


def _ratio(at: Plain | None, base: Plain | None) -> float | None:
    numerator, denominator = (at or {}).get("value"), (base or {}).get("value")
    return None if numerator is None or not denominator else numerator / denominator
