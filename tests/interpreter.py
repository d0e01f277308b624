"""Triton's interpreter, without what it does again at every call of every function of a kernel.

It looks through all of Triton's language for what it has to replace while a kernel runs, and does so for each function
that the kernel calls, too: half the time of tests of kernels. What is to be replaced is the same every time.
"""

from functools import cache
from inspect import getmembers

from triton.language.core import dtype, is_builtin
from triton.runtime import interpreter


@cache
def _builtins(part) -> list[str]:
    """The names of a part of the language that are to be replaced, when nothing has been yet."""
    return [name for name, member in getmembers(part) if is_builtin(member)]


def _patch_builtin(part, builder, scope) -> None:
    """What the function of the same name in Triton does."""
    names = _builtins(part)
    if names and is_builtin(getattr(part, names[0])):  # otherwise the kernel that calls has replaced them all
        for name in names:
            interpreter._patch_attr(part, name, getattr(part, name), builder, scope)


_look_up = interpreter._get_np_dtype
_of_numbers = cache(_look_up)


def _get_np_dtype(kind):
    """What the function of the same name in Triton returns, which makes a table for each answer."""
    return _of_numbers(kind) if type(kind) is dtype else _look_up(kind)


def quicken() -> None:
    """From now on in this process."""
    interpreter._patch_builtin, interpreter._get_np_dtype = _patch_builtin, _get_np_dtype
