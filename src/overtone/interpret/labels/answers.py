"""Answers of an endpoint, kept in a JSON Lines file: one line {"key", "request", "reply"} per request, appended at
once."""

from __future__ import annotations

import hashlib
import json
import threading
from pathlib import Path
from typing import Any

from overtone.core.errors import StoreError


def request_key(request: dict[str, Any]) -> str:
    """Hash of a request's content (model, messages, settings; not the address it is sent to): 64 hex digits."""
    return hashlib.sha256(json.dumps(request, sort_keys=True).encode()).hexdigest()


class Answers:
    """Replies by request; safe to use from several threads.

    path: the file, read now and appended to with every reply; "" keeps answers in memory only. A last line cut short by
    a crash is dropped. Raises StoreError if another line is not an answer.
    """

    def __init__(self, path: str | Path = "") -> None:
        self._path = Path(path) if path else None
        self._replies: dict[str, str] = {}
        self._lock = threading.Lock()
        if self._path is not None and self._path.exists():
            self._read(self._path)

    def __len__(self) -> int:
        return len(self._replies)

    def get(self, request: dict[str, Any]) -> str | None:
        """The kept reply to a request, or None."""
        with self._lock:
            return self._replies.get(request_key(request))

    def put(self, request: dict[str, Any], reply: str) -> None:
        """Keep a reply; it is in the file when this returns. The file is made with the first reply."""
        key = request_key(request)
        line = json.dumps({"key": key, "request": request, "reply": reply}) + "\n"
        with self._lock:
            self._replies[key] = reply
            if self._path is not None:
                self._path.parent.mkdir(parents=True, exist_ok=True)
                with open(self._path, "a", encoding="utf-8") as file:
                    file.write(line)

    def _read(self, path: Path) -> None:
        text = path.read_text(encoding="utf-8")
        lines = text.splitlines(keepends=True)
        if lines and not lines[-1].endswith("\n"):
            # A half-written line would glue itself to the next answer: cut it off before anything is appended.
            with open(path, "r+b") as file:
                file.truncate(len(text.encode()) - len(lines.pop().encode()))
        for number, line in enumerate(lines, start=1):
            try:
                entry = json.loads(line)
                self._replies[str(entry["key"])] = str(entry["reply"])
            except (ValueError, KeyError, TypeError):
                raise StoreError(f"{path}, line {number}: not an answer of a judge. Give another file.") from None
