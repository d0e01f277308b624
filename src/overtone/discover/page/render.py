"""A report as one HTML document that needs nothing else: text by jinja2, charts drawn from JSON by the page."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from overtone.discover.page import words
from overtone.discover.page.claims import grouped
from overtone.discover.page.colours import behaviours, colours
from overtone.discover.page.doses import cross_effects, span, with_one_band
from overtone.discover.page.sections import UNNAMED_BELOW

if TYPE_CHECKING:
    from jinja2 import Environment

SECTIONS = (
    ("doses", "Steering"),
    ("traces", "Traces"),
    ("atoms", "Map"),
    ("features", "Features"),
    ("clusters", "Clusters"),
    ("auroc", "Recovery"),
    ("separability", "Layers"),
    ("confidence", "Confidence"),
    ("length", "Length"),
    ("transfer", "Transfer"),
    ("findings", "Findings"),
    ("model", "Model"),
    ("provenance", "Provenance"),
)
"""Key of the report -> what the page's index calls it, in the order of the page."""

CHARTED = ("findings", "atoms", "separability", "auroc", "doses", "confidence", "length", "transfer", "model")
SCRIPTS = ("svg.js", "charts.js", "figures.js", "page.js")


def render(report: Mapping[str, Any]) -> str:
    """The page of a report: a complete HTML document, self-contained, typically 0.3 to 2 MB.

    report: the plain data of `Report.to_dict()` with the sections of README.md; missing ones are left out.
    """
    report = {**report, "doses": [with_one_band(curve) for curve in report.get("doses") or []]}
    named = colours(behaviours(report))
    env = _environment(list(named))
    return env.get_template("page.html").render(
        report=report,
        here=[(key, label) for key, label in SECTIONS if _present(report.get(key))],
        colours=list(named.values()),
        style=_asset("style.css"),
        script="\n".join(_asset(name) for name in SCRIPTS),
        data=_embedded(report, list(named)),
        groups=grouped(report.get("findings") or []),
        cross=cross_effects(report["doses"]),
        features=in_turn(report.get("features") or []),
        named_clusters=[c for c in report.get("clusters") or [] if is_named(c)],
        unnamed_clusters=[c for c in report.get("clusters") or [] if not is_named(c)],
    )


def is_named(cluster: Mapping[str, Any]) -> bool:
    """Whether a cluster's label says what it is: it has one, and its purity is high enough."""
    return bool(cluster.get("label")) and (cluster.get("purity") or 0.0) >= UNNAMED_BELOW


def in_turn(cards: list[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """The cards so that labels take turns, each label's own order kept: the first few show the variety."""
    turn: dict[str, int] = {}
    keys = []
    for card in cards:
        label = card.get("label") or ""
        turn[label] = turn.get(label, -1) + 1
        keys.append(turn[label])
    return [card for _, card in sorted(zip(keys, cards, strict=True), key=lambda pair: pair[0])]


def by_site(latents: Iterable[str]) -> list[str]:
    """Latents such as "residual.4 #17" with each site said once: "residual.4 #17 #20"."""
    sites: dict[str, list[str]] = {}
    for latent in latents:
        site, _, number = latent.rpartition(" ")
        sites.setdefault(site, []).append(number)
    return [" ".join([site, *numbers]).strip() for site, numbers in sites.items()]


def counted(contexts: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The contexts with those that read the same said once; `times` is how often each was there."""
    seen: dict[tuple[str, ...], dict[str, Any]] = {}
    for context in contexts:
        key = tuple(context.get(part) or "" for part in ("before", "step", "after", "behaviour"))
        seen.setdefault(key, {**context, "times": 0})["times"] += 1
    return list(seen.values())


def best_first(trials: Iterable[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """The trials with each behaviour's largest log ratio first; behaviours keep their order, unknown ratios go last."""
    trials = list(trials)
    behaviours = list(dict.fromkeys(trial["behaviour"] for trial in trials))
    size = {id(t): -math.inf if t.get("swing") is None else t["swing"] for t in trials}
    return sorted(trials, key=lambda t: (behaviours.index(t["behaviour"]), -size[id(t)]))


def _present(section: Any) -> bool:
    """Whether there is anything to show: a map needs points, everything else some content."""
    if isinstance(section, Mapping) and "points" in section:
        return bool(section["points"])
    return bool(section)


def _environment(names: list[str]) -> Environment:
    from jinja2 import Environment, PackageLoader, select_autoescape

    env = Environment(
        loader=PackageLoader("overtone.discover.page", "assets"),
        autoescape=select_autoescape(["html"]),
        trim_blocks=True,
        lstrip_blocks=True,
    )
    env.filters |= {
        name: getattr(words, name)
        for name in ("number", "percent", "estimate", "signed", "duration", "visible", "rounded")
    }
    env.globals |= {
        "span": span,
        "interval": words.interval,
        "apart": words.apart,
        "by_site": by_site,
        "counted": counted,
        "best_first": best_first,
        "percent": words.percent,
        "colour": lambda name: f"b{names.index(name)}" if name in names else "plain",
        "shade": _shade,
        "is_table": lambda value: isinstance(value, Mapping),
    }
    return env


def _shade(ratio: float | None) -> str:
    """Style of a cell: how far a ratio is from 1, in log units; full colour from a factor of 4."""
    if not ratio or ratio <= 0:
        return "--v: 0%"
    size = min(1.0, abs(math.log(ratio)) / math.log(4))
    return f"--v: {100 * size:.0f}%; --hue: var(--{'up' if ratio > 1 else 'down'})"


def _asset(name: str) -> str:
    from importlib.resources import files

    return (files("overtone.discover.page") / "assets" / name).read_text(encoding="utf-8")


def _embedded(report: Mapping[str, Any], names: list[str]) -> str:
    """The numbers of the charts as JSON that may stand inside a script element."""
    data = {key: report[key] for key in CHARTED if report.get(key)}
    # Five significant digits are what a screen can show; NaN and infinity become null.
    short = json.loads(json.dumps(data), parse_float=lambda t: float(f"{float(t):.5g}"), parse_constant=lambda _: None)
    text = json.dumps({**short, "behaviours": names}, separators=(",", ":"), ensure_ascii=False)
    return text.replace("<", "\\u003c").replace("\u2028", "\\u2028").replace("\u2029", "\\u2029")
