"""The knobs of a kind of dictionary as options of `overtone train`: name, type, default, and what its docstring says of
each."""

from __future__ import annotations

import inspect
import re
from dataclasses import MISSING, Field, field, fields
from typing import Annotated, Any, get_type_hints

import tyro

# Whole numbers are read as any number: the preset says, as in Python, which of them it takes.
_READ = {int: (int | float, "INT"), int | None: (int | float | None, "{None}|INT")}


def knobs(preset: type) -> list[tuple[str, Any, Field]]:
    """Fields for `make_dataclass`, one per knob of a preset class."""
    types = get_type_hints(preset)
    told = {name: _in_full(name, text) for name, text in descriptions(preset).items()}
    return [(f.name, _annotated(types[f.name], told.get(f.name, "")), _default(f)) for f in fields(preset)]


def made(preset: type, options: Any) -> Any:
    """The preset whose knobs are the attributes of these options. Raises SettingError as the preset itself does."""
    return preset(**{f.name: getattr(options, f.name) for f in fields(preset)})


def descriptions(preset: type) -> dict[str, str]:
    """What the docstrings of a preset class and its bases say of its knobs, written as "name: text; a, b: text."."""
    names = "|".join(f.name for f in fields(preset))
    found: dict[str, str] = {}
    paragraphs = (part for kind in reversed(preset.__mro__) for part in (inspect.getdoc(kind) or "").split("\n\n"))
    for text in (" ".join(part.split()) for part in paragraphs):
        marks = list(re.finditer(rf"(?:^|(?<=[;.] ))((?:{names})(?:, (?:{names}))*): ", text)) if names else []
        ends = [mark.start() for mark in marks[1:]] + [len(text)]
        for mark, end in zip(marks, ends, strict=False):  # without marks there is one end
            said = text[mark.end() : end].strip().rstrip(";.")
            found |= dict.fromkeys(mark.group(1).split(", "), f"{said[:1].upper()}{said[1:]}.")
    return found


def _in_full(name: str, text: str) -> str:
    """A description that says "As in TopK" of the knob with what is said there."""
    from overtone.core.catalogue import entries

    alike = re.match(r"As in (\w+)\b(.*)", text)
    kinds = [entry.thing for entry in entries("dictionaries").values()] if alike else []
    for kind in kinds:
        if alike and kind.__name__ == alike[1] and (there := descriptions(kind).get(name)):
            return there.rstrip(".") + alike[2]
    return text


def _annotated(kind: Any, told: str) -> Any:
    wide, shown = _READ.get(kind, (kind, None))
    return Annotated[wide, tyro.conf.arg(help=told or None, metavar=shown)]


def _default(f: Field) -> Field:
    if f.default is not MISSING:
        return field(default=f.default)
    return field() if f.default_factory is MISSING else field(default_factory=f.default_factory)
