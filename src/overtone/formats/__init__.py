"""Dictionaries in other libraries' formats: read, written, compared bit by bit.

`import_dictionary` and `export_dictionary` are all that most users need; `convert` is both on folders. docs/formats.md
says what each format can hold.
"""

from importlib import import_module

PUBLIC = {
    "Choices": "overtone.formats.choices",
    "Foreign": "overtone.formats.format",
    "SAEBenchObject": "overtone.formats.saebench",
    "convert": "overtone.formats.exchange",
    "export_control_vector": "overtone.formats.control_vector",
    "export_dictionary": "overtone.formats.exchange",
    "import_control_vector": "overtone.formats.control_vector",
    "import_dictionary": "overtone.formats.exchange",
}
"""Public name -> the module that defines it; imported when first used, since the choices alone need no torch."""

__all__ = ["PUBLIC", *PUBLIC]


def __getattr__(name: str):
    """Import a public name on first use (PEP 562)."""
    if name in PUBLIC:
        return getattr(import_module(PUBLIC[name]), name)
    raise AttributeError(f"overtone.formats has no name {name!r}. It has {', '.join(sorted(PUBLIC))}.")
