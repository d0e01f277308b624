"""What a knob of a preset may be: of its type, finite, and not below a least value."""

import math
import types
import typing
from collections.abc import Mapping
from dataclasses import fields
from functools import cache
from numbers import Integral, Real
from typing import Any

from overtone.core.settings import Settings, require

LEAST = {int: 1, float: 0}  # of whole numbers and of others, unless a preset says otherwise
_TOLD = {
    int: "a whole number", float: "a finite number", bool: "True or False", str: "a text",
    Real: "a number above 0, whole or not",
}  # fmt: skip
_TAKES = {int: Integral, float: Real, Real: Real, bool: bool, str: str}
FRACTION = " A fraction is for kinds that choose k x rows over the whole batch, such as batch_top_k."


def check_knobs(settings: Settings, least: Mapping[str, float]) -> None:
    """Raise SettingError, naming the knob, for one that is of another type than its annotation says, not finite, or
    below its least value; least: name -> value, where it is not LEAST of its type. What is annotated as int | float is
    above 0.

    Numbers of other libraries become Python's, lists become tuples, and 2.0 becomes 2 where int | float is said.
    """
    for name, (kind, several, optional) in _kinds(type(settings)).items():
        value = getattr(settings, name)
        if value is None and optional:
            continue
        least_of_it = least.get(name, LEAST.get(kind))
        told = f"{_TOLD[kind]}{'' if least_of_it is None else f' of at least {least_of_it}'}"
        told = f"{told}{' each' if several else ''}{', or None' if optional else ''}"
        parts = value if several and isinstance(value, list | tuple) else None if several else (value,)
        good = parts is not None and all(_fits(part, kind, least_of_it) for part in parts)
        more = FRACTION if name == "k" and kind is int and isinstance(value, Real) and value % 1 else ""
        require(good, f"{name}={value!r}: use {told}.{more}")
        if parts is not None:
            made = tuple(_pythons(part, kind) for part in parts)
            object.__setattr__(settings, name, made if several else made[0])


def _pythons(value: Any, kind: type) -> Any:
    """A number of another library as Python's; a whole one as such where either will do."""
    if kind is Real:
        return int(value) if value % 1 == 0 else float(value)
    return value if isinstance(value, int | float | str) else kind(value)


def _fits(value: Any, kind: type, least: float | None) -> bool:
    if not isinstance(value, _TAKES[kind]) or (kind is not bool and isinstance(value, bool)):
        return False
    try:
        finite = kind not in (float, Real) or math.isfinite(value)
    except OverflowError:  # a whole number beyond all floats
        finite = False
    if kind is Real:
        finite = finite and value > 0
    return finite and (least is None or value >= least)


@cache
def _kinds(settings: type[Settings]) -> dict[str, tuple[type, bool, bool]]:
    """Name -> (type, whether several of it, whether None too) of the fields of types that are known here."""
    hints, found = typing.get_type_hints(settings), {}
    for name in (f.name for f in fields(settings)):
        origin, inner = typing.get_origin(hints[name]), typing.get_args(hints[name])
        union = origin in (typing.Union, types.UnionType)
        optional = union and type(None) in inner
        kinds = [h for h in inner if h is not type(None)] if union else [hints[name]]
        kinds = [Real] if set(kinds) == {int, float} else kinds
        several = len(kinds) == 1 and typing.get_origin(kinds[0]) is tuple
        kind = typing.get_args(kinds[0])[0] if several else kinds[0]
        if len(kinds) == 1 and kind in _TOLD:
            found[name] = kind, several, optional
    return found
