"""A run's folder: every part is kept under a key of what it depends on, so a second run reuses what still fits.

A part whose key changed is made anew; a part that was interrupted is not there, because everything is written
atomically.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from overtone.core.artifacts import library_version, write_json
from overtone.core.errors import StoreError

LAYOUT = 1
MARK = "run.json"


class Run:
    """The folder of one discovery. seconds: stage -> seconds spent in this process; reused: parts found ready.

    Raises StoreError if the folder holds something that is no run of overtone (nothing is touched then).
    """

    def __init__(self, folder: str | Path, *, resume: bool) -> None:
        self.folder, self.seconds, self.reused = Path(folder), {}, []
        if self.folder.exists() and not self.folder.is_dir():
            raise StoreError(f"{self.folder} is a file. Name a folder for the run.")
        if self.folder.exists() and any(self.folder.iterdir()) and not (self.folder / MARK).exists():
            raise StoreError(
                f"{self.folder} exists and is not a run of overtone; it was left alone. Choose another folder."
            )
        if not resume:
            shutil.rmtree(self.folder / "parts", ignore_errors=True)
        self.parts = self.folder / "parts"
        self.parts.mkdir(parents=True, exist_ok=True)
        write_json(self.folder / MARK, {"layout": LAYOUT, "version": library_version()})

    def path(self, name: str, *depends: Any) -> Path:
        """Where the part `name` lies that depends on some plain data."""
        text = json.dumps([LAYOUT, library_version(), *depends], sort_keys=True, default=str)
        return self.parts / f"{name}-{hashlib.sha256(text.encode()).hexdigest()[:12]}"

    def data(self, name: str, depends: Any, make: Callable[[], Any]) -> Any:
        """Plain data of a part: read if it is there, else made, kept and timed."""
        path = self.path(name, depends).with_suffix(".json")
        if path.exists():
            self.reused.append(name)
            return json.loads(path.read_text())
        started = time.monotonic()
        made = make()
        write_json(path, made)
        self.spent(name, time.monotonic() - started)
        return made

    def spent(self, name: str, seconds: float) -> None:
        """Add to the time of a stage."""
        self.seconds[name] = round(self.seconds.get(name, 0.0) + seconds, 2)
