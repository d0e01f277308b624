"""Which presets can stand beside each other, and with which settings they are equally wide and sparse."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any

from overtone.core.catalogue import entries, lookup
from overtone.core.errors import SettingError

if TYPE_CHECKING:
    from overtone.dictionaries.preset import Preset

ROUNDS = 50  # of presets that are fitted in rounds: some seconds each at the default size
NEEDS = {
    "y": "targets to predict, which a comparison has not",
    "g": "gradients of a loss (--gradients names their array)",
}
MOST_ROWS = 2048  # of presets each of whose rounds goes over all rows; SNMF's paper has a few thousand


@dataclass(frozen=True)
class Entrant:
    """A preset with the settings it is compared with. k: active latents per row that it was asked for, None where it
    has no such knob and finds its own number; paper: as in the catalogue; role: "baseline", "control" or ""."""

    name: str
    preset: Preset
    k: int | float | None
    paper: str
    role: str


def entrants(
    names: Sequence[str], n_latents: int, k: int | float, *, width: int, rounds: int = ROUNDS, gradients: bool = False
) -> tuple[list[Entrant], dict[str, str]]:
    """The presets of some names (none: all of the catalogue) with so many latents and active ones, and name -> reason
    for those that cannot stand beside the others.

    A preset with a budget gets it (a fraction only where rows share it); one with a price is steered to it
    (`target_l0`); one whose atoms are independent gets at most `width` latents; one that is fitted in rounds gets at
    most `rounds` of them, over at most 2048 rows where each goes over all; one for several views gets the states as
    one. Left out are presets that need more than states (and, with `gradients`, these too), and those that cannot have
    such settings. Raises SettingError for an unknown name.
    """
    known = {name: lookup("dictionaries", name) for name in names} if names else entries("dictionaries")
    found, left_out = [], {}
    for name, entry in known.items():
        if lacking := (entry.thing.needs & NEEDS.keys()) - ({"g"} if gradients else set()):
            left_out[name] = f"needs {' and '.join(NEEDS[what] for what in sorted(lacking))}."
            continue
        try:
            preset = _matched(entry.thing, min(n_latents, width) if entry.thing.basis else n_latents, k, rounds)
        except SettingError as error:
            left_out[name] = str(error)
            continue
        asked = {f.name for f in fields(preset)} & {"k", "target_l0"}
        found.append(Entrant(name, preset, k if asked else None, entry.paper, str(entry.facts.get("role") or "")))
    return found, left_out


def _matched(thing: type[Preset], n_latents: int, k: int | float, rounds: int) -> Preset:
    defaults: dict[str, Any] = {f.name: f.default for f in fields(thing)}
    settings = {"n_latents": n_latents, "k": k, "target_l0": float(k), "views": 1, "rows": MOST_ROWS}
    if "k" in defaults:
        del settings["target_l0"]
    if "iterations" in defaults:
        settings["iterations"] = min(rounds, defaults["iterations"])
    return thing.from_dict({name: value for name, value in settings.items() if name in defaults})
