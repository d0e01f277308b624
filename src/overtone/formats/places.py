"""Where dictionaries lie: local files and folders, and names on the hub."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from overtone.core.errors import StoreError

LOOSE = (".npz", ".pt", ".safetensors")  # formats of a single file


def find(source: str | Path) -> Path:
    """The local file or folder that `source` names: a path, or a hub name like org/repo, org/repo/sub/folder or
    org/repo/sub/file.npz, which is fetched into the hub's cache.

    Raises StoreError if there is no such path, or the hub cannot be reached or has no such thing.
    """
    path = Path(source).expanduser()
    if path.exists():
        return path
    name = str(source)
    if isinstance(source, Path) or path.is_absolute() or name.startswith((".", "~")) or name.count("/") < 1:
        raise StoreError(f"there is no {name} here. Give a file, a folder, or a hub name like org/repo/sub/folder.")
    return _fetched(name)


def _fetched(name: str) -> Path:
    from huggingface_hub import snapshot_download

    org, repo, *inner = name.strip("/").split("/")
    below = "/".join(inner)
    if not below:
        only, never = None, ["*/*"]  # a repository's root, not everything below it
    elif below.endswith(LOOSE):
        only, never = [below], None
    else:
        only, never = [f"{below}/*"], [f"{below}/*/*"]
    try:
        root = Path(snapshot_download(f"{org}/{repo}", allow_patterns=only, ignore_patterns=never))
    except Exception as error:  # the hub's errors, and those of every layer of the network below it
        reason = str(error).strip().split("\n")[0][:160].rstrip(".")
        raise StoreError(
            f"{name} is no local path and cannot be had from the hub: {reason}. Fetch it where there is a network "
            f"(`hf download {org}/{repo} --local-dir FOLDER`) and give the folder."
        ) from None
    if not (root / below).exists():
        raise StoreError(f"{org}/{repo} on the hub has no {below}. Look at its files and name a folder or a file.")
    return root / below


@contextmanager
def filled(folder: Path, *, collects: bool, ours: str) -> Iterator[Path]:
    """Yield a temporary folder; on success it takes the place of `folder`, on any exception it leaves nothing.

    An older folder is replaced only if it holds `ours`, the file that overtone leaves beside what it writes. With
    `collects`, files are added to what is there instead. Raises StoreError if the folder holds something else.
    """
    occupied = folder.exists() and not (folder.is_dir() and not any(folder.iterdir()))
    if occupied and not folder.is_dir():
        raise StoreError(f"{folder} is a file; it was left alone. Choose another folder.")
    if occupied and not collects and not (folder / ours).exists():
        raise StoreError(f"{folder} holds no export of overtone but something else; it was left alone. Choose another.")
    part = folder.with_name(f".{folder.name}.{os.getpid()}.part")
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(parents=True)
    try:
        yield part
        if occupied and collects:
            for path in sorted(part.iterdir(), key=lambda p: p.suffix == ".yaml"):
                os.replace(path, folder / path.name)
            return
        if occupied:
            shutil.rmtree(folder)
        elif folder.exists():
            folder.rmdir()
        os.replace(part, folder)
    finally:
        shutil.rmtree(part, ignore_errors=True)
