"""overtone version: what is installed, for bug reports."""

from __future__ import annotations

import platform
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any

from overtone.cli._parse import Shell
from overtone.core.artifacts import library_version

if TYPE_CHECKING:
    from rich.console import Console

STANDS_ON = ("torch", "transformers", "safetensors", "numpy", "pyarrow", "scikit-learn", "tyro", "umap-learn", "openai")


@dataclass(frozen=True, kw_only=True)
class Options(Shell):
    """Versions of overtone, of Python and of the libraries it stands on; nothing is imported to find them.

    Example: overtone version --json
    """


def run(options: Options) -> dict[str, Any]:
    """Name -> version; None for what is not installed."""
    found: dict[str, Any] = {"overtone": library_version(), "python": platform.python_version()}
    for name in STANDS_ON:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = None
    return found


def show(data: dict[str, Any], console: Console) -> None:
    """One line per library."""
    width = max(map(len, data))
    for name, number in data.items():
        console.print(f"{name:<{width}}  {number or '[dim]not installed[/dim]'}")
