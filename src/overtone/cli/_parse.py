"""From words on the command line to a frozen options object, with every mistake told in one line.

The options of a verb are the fields of its `Options` class, read by tyro; tyro itself is imported only here, when a
verb has been chosen.
"""

from __future__ import annotations

import contextlib
import dataclasses
import io
import re
from collections.abc import Mapping
from typing import Any, ClassVar, TypeVar

from overtone.core.errors import SettingError, nearest

_Options = TypeVar("_Options", bound="Shell")

OF_TRAINING = {"--store": "--activations", "--latents": "--n-latents", "--tokens": "--n-tokens"}
"""Other spellings of options that `train` and `compare` have in common."""


_SAID = {  # by Python and tyro, and what people read instead
    r"invalid literal for int\(\) with base 10: ('.*?')": r"\1 is no whole number",
    r"could not convert string to float: ('.*?')": r"\1 is no number",
    r"no type matching \{None\}\|INT could be .*? from \[(.*?)\]\..*": r"\1 is neither a whole number nor None",
    r"no type matching \{None\}\|FLOAT could be .*? from \[(.*?)\]\..*": r"\1 is neither a number nor None",
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Shell:
    """Options of every verb. ALIASES: other spellings of some; VERB: what help is asked of, where that takes more."""

    ALIASES: ClassVar[Mapping[str, str]] = {}
    VERB: ClassVar[str] = ""

    json: bool = False
    """Print one JSON document on standard output and nothing else there."""
    quiet: bool = False
    """Show no progress."""


def parse(kind: type[_Options], verb: str, words: list[str]) -> _Options:
    """The options that `words` stand for.

    Raises SettingError, in one line, for an unknown option (naming the nearest one), a missing or a bad value, and
    SystemExit(0) after printing help.
    """
    import tyro

    said = io.StringIO()
    try:
        with contextlib.redirect_stderr(said):
            options, unknown = tyro.cli(
                kind,
                args=words,
                prog=f"overtone {verb}",
                config=(tyro.conf.FlagCreatePairsOff,),
                return_unknown_args=True,
                registry=_registry(),
            )
    except SystemExit as stop:
        if not stop.code:
            raise
        raise SettingError(f"{_sentence(said.getvalue())} See overtone {kind.VERB or verb} --help.") from None
    if unknown:
        raise SettingError(_unknown(kind, verb, unknown))
    return options


def _registry() -> Any:
    """How values are read that tyro would read otherwise: true and false, where nothing may be said too, and numbers
    that may be whole or not."""
    from tyro.constructors import ConstructorRegistry, PrimitiveConstructorSpec, PrimitiveTypeInfo

    registry, values = ConstructorRegistry(), {"true": True, "false": False, "none": None}

    def read(words: list[str]) -> bool | None:
        if words[0].lower() not in values:
            raise ValueError(f"{words[0]!r}: say true or false.")
        return values[words[0].lower()]

    @registry.primitive_rule
    def rule(info: PrimitiveTypeInfo) -> PrimitiveConstructorSpec | None:
        if info.type != bool | None:
            return None
        return PrimitiveConstructorSpec(
            nargs=1, metavar="{true,false}", instance_from_str=read,
            is_instance=lambda value: value is None or isinstance(value, bool),
            str_from_instance=lambda value: [str(value).lower()],
        )  # fmt: skip

    @registry.primitive_rule
    def of_numbers(info: PrimitiveTypeInfo) -> PrimitiveConstructorSpec | None:
        optional = info.type == int | float | None
        if not optional and info.type != int | float:
            return None
        return PrimitiveConstructorSpec(
            nargs=1, metavar="NUM", instance_from_str=lambda words: _number(words[0], optional),
            is_instance=lambda value: isinstance(value, int | float) or (optional and value is None),
            str_from_instance=lambda value: [str(value)],
        )  # fmt: skip

    return registry


def _number(word: str, optional: bool) -> int | float | None:
    if optional and word.lower() == "none":
        return None
    try:
        return int(word) if re.fullmatch(r"[+-]?\d+", word) else float(word)
    except ValueError:
        raise ValueError(f"{word!r} is {'neither a number nor None' if optional else 'no number'}.") from None


def option_names(kind: type) -> list[str]:
    """Every option of an options class as it is written (--like-this, --nested.like-this), those of its help."""
    import tyro

    told = io.StringIO()
    with contextlib.redirect_stdout(told), contextlib.suppress(SystemExit):
        tyro.cli(kind, args=["--help"], config=(tyro.conf.FlagCreatePairsOff,))
    return sorted(set(re.findall(r"(?<![\w-])--[a-z][\w.-]*", told.getvalue())))


def _unknown(kind: "type[Shell]", verb: str, words: list[str]) -> str:
    options = [word for word in words if word.startswith("-")]
    if not options:
        return f"{verb} does not know what to do with {words[0]!r}. See overtone {kind.VERB or verb} --help."
    hint = nearest(options[0].split("=")[0], option_names(kind))
    return f"{verb} has no option {options[0]}.{hint} See overtone {kind.VERB or verb} --help."


def _sentence(box: str) -> str:
    """The message inside the frame that tyro draws around an error, as one sentence."""
    text = re.sub(r"\x1b\[[0-9;]*m", "", box)
    lines = [line.strip(" │") for line in text.splitlines() if not re.match(r"\s*[╭╰]", line)]
    lines = lines[2:] if len(lines) > 1 and re.match(r"-+$", lines[1]) else lines  # a title, where there is ASCII only
    until = next((i for i, line in enumerate(lines) if re.match(r"[─-]+$", line)), len(lines))
    sentence = " ".join(lines[:until]).strip() or "these options cannot be read."
    sentence = sentence.replace(" (required)", "")
    sentence = re.sub(r"^Error parsing (?!-)[\w.]+: ", "", sentence)  # a settings class speaks for itself
    for said, told in _SAID.items():
        sentence = re.sub(said, told, sentence)
    return sentence if sentence.endswith((".", "?", "!")) else sentence + "."
