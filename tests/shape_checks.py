"""The checker behind jaxtyping's import hook (tests/conftest.py): array annotations only.

Everything else in a signature is pyright's business. That keeps `strength=1` legal for a float, and lets annotations
name things that are imported for the type checker alone.
"""

from typing import Any, get_args

from beartype import beartype
from jaxtyping import AbstractArray


def check(function):
    """Wrap `function` so that arguments and results annotated with a jaxtyping array are checked."""
    kept = {name: hint for name, hint in function.__annotations__.items() if mentions_array(hint)}
    if not kept:
        return function
    function.__annotations__ = kept
    return beartype(function)


def mentions_array(hint: Any) -> bool:
    """True if `hint` is an array annotation, or a union or container of one."""
    if isinstance(hint, type) and issubclass(hint, AbstractArray):
        return True
    return any(mentions_array(part) for part in get_args(hint))
