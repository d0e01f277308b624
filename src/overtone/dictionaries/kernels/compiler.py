"""Compiles the C files of this folder at first use and loads them: no build at installation, no headers of torch.

The library lies in the user's cache folder under a name that holds the sources, the compiler, its options and the
processor, so that an old one is never taken for a new one and machines may share a home. It is written under another
name first and then renamed: processes that build at the same time do not disturb each other. Whatever goes wrong here
is reported as `BuildError`; the caller then does without.
"""

import ctypes
import hashlib
import os
import platform
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path

TIMEOUT_S = 120.0
OPTIONS = ("-O3", "-std=gnu11", "-shared", "-fPIC", "-fno-math-errno")


class BuildError(Exception):
    """There is no such library on this machine, and why. Never leaves the package."""


def load(options: Sequence[str], folder: Path = Path(__file__).parent) -> ctypes.CDLL:
    """One library of all C files of a folder, compiled with options beside the usual ones. Raises BuildError."""
    compiler = next(filter(None, map(shutil.which, _compilers())), None)
    if compiler is None:
        raise BuildError("there is no C compiler (cc, gcc, clang, or what CC names)")
    command = [compiler, *OPTIONS, *options]
    sources = sorted(folder.glob("*.c"))
    try:
        library = cache_folder() / f"kernels-{_key([*sources, *sorted(folder.glob('*.h'))], command)}.so"
        if not library.exists():
            _build(sources, command, library)
        return ctypes.CDLL(str(library))
    except (OSError, RuntimeError) as error:  # no home, a folder that cannot be written, a library that does not load
        raise BuildError(f"the compiled library cannot be had: {error}") from error


def cache_folder() -> Path:
    """Where libraries lie: $XDG_CACHE_HOME/overtone/kernels, by default under ~/.cache."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "overtone" / "kernels"


def _compilers() -> list[str]:
    said = os.environ.get("CC", "").split()
    return said[:1] or ["cc", "gcc", "clang"]


def _key(sources: Sequence[Path], command: Sequence[str]) -> str:
    try:
        said = subprocess.run([command[0], "--version"], capture_output=True, timeout=TIMEOUT_S, check=True).stdout
    except (OSError, subprocess.SubprocessError) as error:
        raise BuildError(f"{command[0]} --version failed: {error}") from error
    parts = [*(source.read_bytes() for source in sources), said, " ".join(command).encode(), _processor().encode()]
    return hashlib.sha256(b"\0".join(parts)).hexdigest()[:20]


def _processor() -> str:
    """What distinguishes this processor from others that a library may not run on."""
    facts = Path("/proc/cpuinfo")
    lines = facts.read_text().splitlines() if facts.exists() else []
    telling = {line for line in lines if line.split("\t")[0] in ("model name", "flags", "Features", "CPU part")}
    return " ".join([platform.machine(), platform.processor(), *sorted(telling)])


def _build(sources: Sequence[Path], command: Sequence[str], library: Path) -> None:
    library.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    with tempfile.TemporaryDirectory(dir=library.parent) as folder:
        made = Path(folder) / library.name
        try:
            subprocess.run(
                [*command, *map(str, sources), "-o", str(made), "-lm"],
                capture_output=True, timeout=TIMEOUT_S, check=True,
            )  # fmt: skip
        except subprocess.CalledProcessError as error:
            raise BuildError(f"{command[0]} failed: {error.stderr.decode(errors='replace').strip()[:500]}") from error
        except subprocess.TimeoutExpired as error:
            raise BuildError(f"{command[0]} took longer than {TIMEOUT_S:.0f} s") from error
        os.replace(made, library)
