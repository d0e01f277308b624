"""Real text that is wherever Python is: the documentation in the source of its standard library."""

from __future__ import annotations

import ast
import sys
import sysconfig
from collections.abc import Iterator
from pathlib import Path
from random import Random

from overtone.core.errors import DataError, SettingError
from overtone.data.texts import Text

FEWEST_WORDS = 12
"""Shorter docstrings are labels rather than prose."""


def docstrings(n_texts: int, *, seed: int = 0, per_module: int = 10) -> list[Text]:
    """Up to `n_texts` docstrings of the standard library's packages, up to `per_module` of each module.

    Modules come in an order drawn by the seed; the group of a text is its module (`email.message`), its meta names the
    package (`email`). Each has 12 words or more. Which texts there are depends on the version of Python. Raises
    SettingError for a count below 1, DataError if the sources are not installed.
    """
    if n_texts < 1 or per_module < 1:
        raise SettingError(f"n_texts={n_texts}, per_module={per_module}: use at least 1 of each.")
    root = Path(sysconfig.get_paths()["stdlib"])
    files = list(_modules(root))
    Random(seed).shuffle(files)
    texts: list[Text] = []
    for file in files:
        name = ".".join(file.relative_to(root).with_suffix("").parts).removesuffix(".__init__")
        found = list(_prose(file))[:per_module]
        texts += [Text(text, name, {"package": name.split(".")[0]}) for text in found]
        if len(texts) >= n_texts:
            return texts[:n_texts]
    if not texts:
        raise DataError(f"no source of the standard library under {root}. Install Python with its sources.")
    return texts


def _modules(root: Path) -> Iterator[Path]:
    """Source files of packages, tests left out, in alphabetical order."""
    for package in sorted(sys.stdlib_module_names):
        for file in sorted((root / package).rglob("*.py")) if (root / package).is_dir() else ():
            if not {"test", "tests", "site-packages"} & set(file.relative_to(root).parts):
                yield file


def _prose(file: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(file.read_bytes())):
        documented = isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef)
        text = ast.get_docstring(node) if documented else None
        if text and len(text.split()) >= FEWEST_WORDS:
            yield text
