"""Errors that speak to the user: what was asked, what is allowed, what came, the next step.

Every error a user can cause is an `OvertoneError`; the command line prints its one line and exits 2.
Each class has a section in docs/errors.md.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class OvertoneError(Exception):
    """Base of every error that a user's input can cause."""


class SettingError(OvertoneError, ValueError):
    """A setting is unknown, out of range, or contradicts another one."""


class ShapeError(OvertoneError, ValueError):
    """An array has another shape, width or dtype than the call needs."""


class DataError(OvertoneError, ValueError):
    """The data cannot be used: empty, not finite, without steps, or not in the expected format."""


class SiteError(OvertoneError, ValueError):
    """A site does not exist in this model, or a direction belongs to another site or model."""


class ModelError(OvertoneError, RuntimeError):
    """A model or tokenizer cannot be found, loaded or adapted."""


class StoreError(OvertoneError, RuntimeError):
    """A folder on disk is missing, truncated, foreign, or was made with other settings."""


class DivergenceError(OvertoneError, ArithmeticError):
    """A training's loss is no longer finite; the message says when that happened and what to change."""


class CapabilityError(OvertoneError, TypeError):
    """This dictionary cannot do what was asked; the message names one that can."""


class WorkerError(OvertoneError, RuntimeError):
    """Another process of the same training is gone; the message says what to look for and how to go on."""


class JudgeError(OvertoneError, RuntimeError):
    """A judge (an external endpoint) could not be reached or answered in no usable form."""


def nearest(name: str, allowed: Iterable[str]) -> str:
    """A hint for a mistyped `name`: " Did you mean 'x'?", or "" if nothing is close."""
    close = difflib.get_close_matches(name, list(allowed), n=1, cutoff=0.5)
    return f" Did you mean {close[0]!r}?" if close else ""
