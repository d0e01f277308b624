"""The main job: from sampled traces to discovered, named and causally tested reasoning vectors.

In one call: `discover(DiscoverSettings(), "runs/mine", resume=True)`, which `overtone discover` makes.
"""

from importlib import import_module

PUBLIC = {
    "CausalSettings": "overtone.discover.settings",
    "ConfidenceSettings": "overtone.discover.settings",
    "DictionarySettings": "overtone.discover.settings",
    "DiscoverSettings": "overtone.discover.settings",
    "SamplingSettings": "overtone.discover.settings",
    "discover": "overtone.discover.pipeline",
}
"""Public name -> the module that defines it; imported when first used, since the settings alone need no torch."""

__all__ = ["PUBLIC", *PUBLIC]


def __getattr__(name: str):
    """Import a public name on first use (PEP 562)."""
    if name in PUBLIC:
        return getattr(import_module(PUBLIC[name]), name)
    raise AttributeError(f"overtone.discover has no name {name!r}. It has {', '.join(sorted(PUBLIC))}.")
