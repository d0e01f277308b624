"""Steering: edits along directions, where and when they apply, in which dose, and generation under them.

The names below are imported when they are first used: listing the kinds of edit does not load a model library.
"""

from importlib import import_module

PUBLIC = {
    "Add": "overtone.steering.edits.add",
    "AtomSet": "overtone.steering.edits.atom_set",
    "Attenuate": "overtone.steering.edits.atom_set",
    "Clamp": "overtone.steering.edits.clamp",
    "Comparison": "overtone.steering.measure",
    "Edit": "overtone.steering.edit",
    "Flip": "overtone.steering.edits.flip",
    "IdleSteeringWarning": "overtone.steering.generate",
    "LogitBias": "overtone.steering.bias",
    "NormPreserving": "overtone.steering.edits.norm_preserving",
    "Push": "overtone.steering.edits.push",
    "Remove": "overtone.steering.edits.remove",
    "Sampling": "overtone.steering.generate",
    "Scale": "overtone.steering.edits.scale",
    "ScaleAround": "overtone.steering.edits.scale_around",
    "Steering": "overtone.steering.steer",
    "Strength": "overtone.steering.strength",
    "When": "overtone.steering.when",
    "bias_of": "overtone.steering.bias",
    "calibrated": "overtone.steering.calibrate",
    "everywhere": "overtone.steering.steer",
    "generate_arms": "overtone.steering.generate",
    "keyword_penalty": "overtone.steering.bias",
    "mean_change": "overtone.steering.edit",
    "measure_kl": "overtone.steering.measure",
    "steered": "overtone.steering.steer",
    "strength_for_kl": "overtone.steering.calibrate",
}
"""Public name -> the module that defines it. `generate` is a module here, and the function of that name lives in it."""

__all__ = ["PUBLIC", *PUBLIC]


def __getattr__(name: str):
    """Import a public name on first use (PEP 562)."""
    if name in PUBLIC:
        return getattr(import_module(PUBLIC[name]), name)
    raise AttributeError(f"overtone.steering has no name {name!r}. It has {', '.join(sorted(PUBLIC))}.")
