"""Findings in groups, by the letter that their id starts with: "c.reflection.amplify" belongs to (c)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

Plain = Mapping[str, Any]

GROUPS = {
    "a": ("Recoverable", "Do single latents, found without labels, recognise behaviours?"),
    "b": ("Separable", "Do the atoms of one behaviour lie together?"),
    "c": ("Causal", "Does pushing along a vector change how often its behaviour occurs?"),
    "d": ("Confidence", "Does a search for certainty find vectors that change the reasoning?"),
    "e": ("Length", "Do atoms of long and of short responses lie apart?"),
    "f": ("Transfer", "Do the vectors work on other tasks too?"),
}
"""Letter -> (name, what its claims ask together)."""

MAIN = ("mean", "monotone", "amplify", "suppress", "silhouette", "entropy", "length", "transfer")
"""Parts of an id that make a finding one of the main ones of its group, whether or not it holds."""


@dataclass(frozen=True)
class Group:
    """Findings of one letter as (place in the report, finding). letter "" holds all whose id starts otherwise.

    main: the two or three that matter most; rest: the others, in their order.
    """

    letter: str
    name: str
    asks: str
    main: tuple[tuple[int, Plain], ...]
    rest: tuple[tuple[int, Plain], ...]

    @property
    def all(self) -> list[tuple[int, Plain]]:
        """Every finding of the group, in the order of the report."""
        return sorted((*self.main, *self.rest), key=lambda pair: pair[0])

    @property
    def n_hold(self) -> int:
        """How many hold."""
        return sum(f["holds"] is True for _, f in self.all)

    @property
    def n_open(self) -> int:
        """How many could not be tested."""
        return sum(f["holds"] is None for _, f in self.all)


def grouped(findings: Iterable[Plain]) -> list[Group]:
    """The findings by letter, (a) to (f), then those with another id; empty groups are left out."""
    by_letter: dict[str, list[tuple[int, Plain]]] = {letter: [] for letter in (*GROUPS, "")}
    for place, finding in enumerate(findings):
        letter = finding["id"].split(".")[0]
        by_letter[letter if letter in GROUPS else ""].append((place, finding))
    return [_group(letter, found) for letter, found in by_letter.items() if found]


def _group(letter: str, found: Sequence[tuple[int, Plain]]) -> Group:
    ranked = sorted(range(len(found)), key=_order(found).__getitem__)
    n_main = sum(_kind(f) < len(MAIN) for _, f in found)
    chosen = set(ranked[: min(3, max(2, n_main))])
    name, asks = GROUPS.get(letter, ("Further", "What else was asked"))
    main = tuple(pair for i, pair in enumerate(found) if i in chosen)
    return Group(letter, name, asks, main, tuple(pair for i, pair in enumerate(found) if i not in chosen))


def _kind(finding: Plain) -> int:
    parts = finding["id"].split(".")
    return min((MAIN.index(part) for part in parts if part in MAIN), default=len(MAIN))


def _order(found: Sequence[tuple[int, Plain]]) -> list[tuple[bool, int, int]]:
    """Sort keys: main kinds first; of these the first of every kind (that is, of the first behaviour) before the second
    of any; never by what was measured."""
    seen: dict[int, int] = {}
    keys = []
    for _, finding in found:
        kind = _kind(finding)
        seen[kind] = seen.get(kind, -1) + 1
        keys.append((kind == len(MAIN), seen[kind], kind))
    return keys
