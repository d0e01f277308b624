"""Frozen settings: validated at construction, exact round trip with JSON, unknown keys refused by name."""

from __future__ import annotations

import dataclasses
import types
import typing
from collections.abc import Mapping
from typing import Any, Self

from overtone.core.errors import SettingError, nearest


@dataclasses.dataclass(frozen=True)
class Settings:
    """Base of every settings class: subclass it as a frozen dataclass with at most a dozen fields."""

    def to_dict(self) -> dict[str, Any]:
        """Plain data (JSON types; tuples as lists) from which `from_dict` restores an equal object."""
        return {f.name: _plain(getattr(self, f.name)) for f in dataclasses.fields(self)}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Self:
        """Settings from plain data. Raises SettingError naming an unknown key and the nearest known one."""
        known = {f.name for f in dataclasses.fields(cls)}
        for key in data:
            if key not in known:
                raise SettingError(
                    f"{cls.__name__} has no setting {key!r}.{nearest(key, known)} It knows: {', '.join(sorted(known))}."
                )
        hints = typing.get_type_hints(cls)
        return cls(**{key: _restore(value, hints[key]) for key, value in data.items()})

    def replaced(self, **changes: Any) -> Self:
        """A copy with some settings changed, validated again. Raises SettingError for unknown names."""
        return type(self).from_dict({**self.to_dict(), **{k: _plain(v) for k, v in changes.items()}})


def _plain(value: Any) -> Any:
    if isinstance(value, Settings):
        return value.to_dict()
    if isinstance(value, tuple | list):
        return [_plain(v) for v in value]
    if isinstance(value, Mapping):
        return {str(k): _plain(v) for k, v in value.items()}
    return value if isinstance(value, bool | int | float | str | None) else str(value)


def _restore(value: Any, hint: Any) -> Any:
    origin = typing.get_origin(hint)
    if origin in (typing.Union, types.UnionType):
        inner = [h for h in typing.get_args(hint) if h is not type(None)]
        return None if value is None else _restore(value, inner[0]) if len(inner) == 1 else value
    if isinstance(hint, type) and issubclass(hint, Settings) and isinstance(value, Mapping):
        return hint.from_dict(value)
    if origin is tuple and isinstance(value, list | tuple):
        return tuple(_restore(v, typing.get_args(hint)[0]) for v in value)
    parse = getattr(hint, "parse", None)
    return parse(value) if parse is not None and isinstance(value, str) else value


def require(condition: bool, message: str) -> None:
    """Raise SettingError(message) unless condition holds. The message says what was asked, what is allowed and the
    next step."""
    if not condition:
        raise SettingError(message)
