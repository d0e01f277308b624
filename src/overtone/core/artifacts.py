"""Artifacts: folders with a manifest, written atomically, refused when foreign or damaged.

A folder is complete if and only if its ``manifest.json`` is there: it is written last, into a temporary sibling that is
renamed at the end. No pickle anywhere.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from overtone.core.errors import StoreError

MANIFEST = "manifest.json"
FREE = frozenset({MANIFEST, "README.md"})  # not hashed: a README is for people, who may edit it
SCHEMA = 1


@dataclass(frozen=True)
class Manifest:
    """What a folder is: kind (such as "dictionary"), schema, library version, seed, sources (name -> fingerprint of
    what it was made from), free `facts`, and the sha256 of every file."""

    kind: str
    seed: int | None = None
    sources: Mapping[str, str] = field(default_factory=dict)
    facts: Mapping[str, Any] = field(default_factory=dict)
    files: Mapping[str, str] = field(default_factory=dict)
    schema: int = SCHEMA
    version: str = ""

    @property
    def fingerprint(self) -> str:
        """Hash of the content (not of the folder's name or age): 16 hex digits."""
        text = json.dumps(
            [self.kind, self.schema, dict(sorted(self.files.items())), dict(self.facts)], sort_keys=True, default=str
        )
        return hashlib.sha256(text.encode()).hexdigest()[:16]


def write_bytes(path: Path, data: bytes) -> None:
    """Write a file so that a reader sees the old content or the new one, never a part."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    with open(part, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    os.replace(part, path)


def write_json(path: Path, data: Any) -> None:
    """Write plain data as JSON, atomically; NaN is refused (ValueError)."""
    write_bytes(Path(path), (json.dumps(data, indent=1, allow_nan=False) + "\n").encode())


def file_hash(path: Path) -> str:
    """sha256 of a file's bytes, in hex."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def library_version() -> str:
    """Version of the installed overtone, or "unknown" outside an installation."""
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version("overtone")
    except PackageNotFoundError:
        return "unknown"


@contextmanager
def new_folder(path: str | Path, manifest: Manifest) -> Iterator[Path]:
    """Yield a temporary folder to fill; on success add the manifest and rename it to `path` (an older artifact of the
    same kind is replaced), on any exception leave nothing. Raises StoreError if `path` holds something else, or no
    folder can be made there."""
    path = Path(path)
    require_room(path, manifest.kind)
    part, old = (path.with_name(f".{path.name}.{os.getpid()}.{kind}") for kind in ("part", "old"))
    shutil.rmtree(part, ignore_errors=True)
    try:
        part.mkdir(parents=True)
    except OSError as error:
        raise StoreError(f"no folder can be made at {path}: {error.strerror}. Choose another place.") from None
    try:
        yield part
        seal(part, manifest)
        if path.exists():  # out of the way by a rename: a kill must not find the old one half removed
            os.replace(path, old)
        os.replace(part, path)
        shutil.rmtree(old, ignore_errors=True)
    finally:
        shutil.rmtree(part, ignore_errors=True)


def require_room(path: str | Path, kind: str) -> None:
    """Raise StoreError unless an artifact of a kind may be made at a path: where nothing is, or an empty folder, or an
    older artifact of the same kind, and one may write. Long work asks before it begins."""
    path = Path(path)
    if path.name in ("", ".."):
        raise StoreError(f"{str(path)!r} is not the name of a folder that can be made. Give one, such as runs/{kind}.")
    there = next(p for p in (path, *path.absolute().parents) if p.exists())
    if not there.is_dir():
        raise StoreError(f"{there} exists and is no folder; it was left alone. Choose another place than {path}.")
    place = path.absolute().parent if there == path else there
    if not os.access(place, os.W_OK | os.X_OK):
        raise StoreError(f"nothing may be written in {place}. Choose another place than {path}.")
    if there != path or not any(path.iterdir()):
        return
    try:
        found = _manifest(path)
    except StoreError:
        raise StoreError(
            f"{path} exists and is not an overtone folder; it was left alone. Choose another folder."
        ) from None
    if found.kind != kind:
        raise StoreError(f"{path} holds {_a(found.kind)}, not {_a(kind)}; it was left alone. Choose another folder.")


def seal(folder: Path, manifest: Manifest) -> Manifest:
    """Hash every file of a folder but its README.md and write its manifest, which makes the folder complete.

    Returns the sealed manifest.
    """
    names = sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file())
    sealed = Manifest(
        manifest.kind,
        manifest.seed,
        dict(manifest.sources),
        dict(manifest.facts),
        {n: file_hash(folder / n) for n in names if n not in FREE},
        SCHEMA,
        library_version(),
    )
    write_json(folder / MANIFEST, {**sealed.__dict__})
    return sealed


def read_manifest(path: str | Path, kind: str, *, check_files: bool = True) -> Manifest:
    """The manifest of a complete folder of a kind. Raises StoreError saying whether it is missing, unfinished, of
    another kind, of a newer schema, or damaged (a file is missing or its hash differs; skipped with
    check_files=False)."""
    path = Path(path)
    manifest = _manifest(path)
    if manifest.schema > SCHEMA:
        raise StoreError(f"{path} has schema {manifest.schema}, this overtone reads up to {SCHEMA}. Update overtone.")
    if manifest.kind != kind:
        raise StoreError(f"{path} holds {_a(manifest.kind)}, not {_a(kind)}. Give the folder of {_a(kind)}.")
    for name, digest in manifest.files.items() if check_files else ():
        if name not in FREE and (not (path / name).exists() or file_hash(path / name) != digest):
            raise StoreError(f"{path / name} is missing or damaged (its hash differs). Make the folder again.")
    return manifest


def _manifest(path: Path) -> Manifest:
    if not path.is_dir():
        raise StoreError(f"{path} does not exist or is not a folder. Make it first, or correct the path.")
    if not (path / MANIFEST).exists():
        raise StoreError(f"{path} has no {MANIFEST}: it is foreign or unfinished. Run the command that makes it again.")
    try:
        return Manifest(**json.loads((path / MANIFEST).read_text()))
    except (ValueError, TypeError) as error:
        raise StoreError(f"{path / MANIFEST} is not a manifest of overtone ({error}). Make the folder again.") from None


def _a(kind: str) -> str:
    """A kind with its article, if it takes one."""
    return kind if kind.endswith("s") else f"an {kind}" if kind[0] in "aeiou" else f"a {kind}"
