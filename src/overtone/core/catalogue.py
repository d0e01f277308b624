"""The catalogue: every variant enrols itself, everything else discovers it.

A file in one of the folders below that decorates something with ``@enrol(...)`` is found by tests, command line,
docs and app alike; nothing else has to be edited.
"""

from __future__ import annotations

import importlib
import json
import pkgutil
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, TypeVar

from overtone.core.errors import SettingError, nearest

FOLDERS = {
    "dictionaries": "overtone.dictionaries.presets",
    "edits": "overtone.steering.edits",
    "studies": "overtone.studies",
    "adapters": "overtone.models.adapters",
    "formats": "overtone.formats.kinds",
}
_ENTRIES: dict[str, dict[str, Entry]] = {kind: {} for kind in FOLDERS}
_Thing = TypeVar("_Thing")


@dataclass(frozen=True)
class Entry:
    """One enrolled variant: its kind, name, paper (title and arXiv id, or "" for a classic), one-line summary,
    the thing itself (class or function) and free facts that `overtone list` prints."""

    kind: str
    name: str
    paper: str
    summary: str
    thing: Any
    facts: dict[str, Any] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """Name, paper, summary and facts as plain data (JSON types; any other object as its text)."""
        facts = json.loads(json.dumps(self.facts, default=str))
        return {"name": self.name, "paper": self.paper, "summary": self.summary, **facts}


def enrol(kind: str, name: str, *, paper: str = "", summary: str = "", **facts: Any) -> Callable[[_Thing], _Thing]:
    """Decorator that enters a class or function in the catalogue under a kind (see FOLDERS) and a name.

    summary defaults to the first line of the docstring. Raises SettingError if the name is taken by another thing.
    """

    def add(thing: _Thing) -> _Thing:
        first_line = (thing.__doc__ or "").strip().split("\n")[0]
        entry = Entry(kind, name, paper, summary or first_line, thing, facts)
        known = _ENTRIES[kind].get(name)
        if known is not None and known.thing.__module__ != getattr(thing, "__module__", None):
            raise SettingError(f"{kind} already has {name!r} (from {known.thing.__module__}). Choose another name.")
        _ENTRIES[kind][name] = entry
        return thing

    return add


def entries(kind: str) -> dict[str, Entry]:
    """All enrolled variants of a kind by name, sorted; imports every file of the kind's folder first.

    Raises SettingError for an unknown kind.
    """
    if kind not in FOLDERS:
        raise SettingError(
            f"{kind!r} is not a kind of the catalogue.{nearest(kind, FOLDERS)} Use one of {', '.join(FOLDERS)}."
        )
    package = importlib.import_module(FOLDERS[kind])
    for module in pkgutil.iter_modules(package.__path__):
        importlib.import_module(f"{FOLDERS[kind]}.{module.name}")
    return dict(sorted(_ENTRIES[kind].items()))


def lookup(kind: str, name: str) -> Entry:
    """The entry of a name. Raises SettingError naming the nearest one."""
    known = entries(kind)
    if name not in known:
        raise SettingError(f"{kind} has no {name!r}.{nearest(name, known)} Known: {', '.join(known)}.")
    return known[name]
