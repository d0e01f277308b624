"""overtone: decompose what a neural network computes into directions, name them, turn them up or down, and prove it.

Importing this package costs nothing: no torch, no transformers. Rooms (`overtone.data`, `overtone.steering`, ...) and
the public names below are imported when they are first used. Code inside the package never imports this module.
"""

from importlib import import_module

__version__ = "0.1.0"

ROOMS = (
    "core", "data", "models", "activations", "dictionaries", "training", "interpret", "directions", "steering",
    "evaluate", "formats", "discover", "studies",
)  # fmt: skip

PUBLIC: dict[str, str] = {
    "ActivationBatch": "overtone.core.batch",
    "Finding": "overtone.core.report",
    "OvertoneError": "overtone.core.errors",
    "Report": "overtone.core.report",
    "Site": "overtone.core.sites",
}
"""Public name -> the module that defines it. One line here is all that exporting a name takes."""

__all__ = ["__version__", *PUBLIC]


def __getattr__(name: str):
    """Import a room or a public name on first use (PEP 562)."""
    if name in ROOMS:
        return import_module(f"overtone.{name}")
    if name in PUBLIC:
        return getattr(import_module(PUBLIC[name]), name)
    raise AttributeError(f"overtone has no name {name!r}. Its rooms are {', '.join(ROOMS)}.")


def __dir__() -> list[str]:
    """Names offered to completion: what is loaded, the rooms and the public names."""
    return sorted({*globals(), *ROOMS, *PUBLIC})
