"""The checker behind jaxtyping's import hook (tests/conftest.py): array annotations only, and at no cost elsewhere.

Everything else in a signature is pyright's business. That keeps `strength=1` legal for a float, and lets annotations
name things that are imported for the type checker alone.
"""

import re
from collections.abc import Sequence
from types import FunctionType
from typing import Any, get_args

import jaxtyping
from beartype import beartype
from jaxtyping import AbstractArray

AN_ARRAY = re.compile(rf"\b({'|'.join(name for name in dir(jaxtyping) if name[0].isupper())})\[")


def install(rooms: Sequence[str]) -> None:
    """Check the functions of these rooms of overtone, when they are imported, at every call. Those that name no array
    are left as they are, and dataclasses too: jaxtyping would wrap them, and steps of small dictionaries took 2.5 times
    as long, a tenth longer for the dataclasses alone."""
    everything = jaxtyping.jaxtyped

    def where_arrays_are_named(**options: Any):
        wrap = everything(**options)
        return lambda thing: wrap(thing) if names_arrays(thing) else thing

    jaxtyping.jaxtyped = where_arrays_are_named
    jaxtyping.install_import_hook([f"overtone.{room}" for room in rooms], "shape_checks.check")


def check(function):
    """Wrap `function` so that arguments and results annotated with a jaxtyping array are checked."""
    kept = arrays_of(function)
    if not kept:
        return function
    function.__annotations__ = kept
    return beartype(function)


def names_arrays(thing) -> bool:
    """Whether a function, or what makes an object of a class, has array annotations, some of which may not be evaluated
    yet; True of what is neither."""
    function = thing.__init__ if isinstance(thing, type) else thing
    if not isinstance(function, FunctionType):
        return not isinstance(thing, type)
    hints = function.__annotations__.values()
    return bool(arrays_of(function)) or any(isinstance(hint, str) and AN_ARRAY.search(hint) for hint in hints)


def arrays_of(function) -> dict[str, Any]:
    """The array annotations of a function, by name."""
    return {name: hint for name, hint in function.__annotations__.items() if mentions_array(hint)}


def mentions_array(hint: Any) -> bool:
    """True if `hint` is an array annotation, or a union or container of one."""
    if isinstance(hint, type) and issubclass(hint, AbstractArray):
        return True
    return any(mentions_array(part) for part in get_args(hint))
