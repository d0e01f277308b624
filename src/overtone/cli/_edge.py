"""Which verb runs, what is printed where, and how it ends: JSON when asked, errors as one line and an exit code.

This is not in the package's __init__, because importing a verb sets its name there, and one verb is called `list`.
"""

from __future__ import annotations

import contextlib
import errno
import os
import sys
from collections.abc import Sequence
from importlib import import_module
from types import ModuleType
from typing import Any

from overtone.cli._table import VERBS, overview
from overtone.core import progress
from overtone.core.errors import OvertoneError, SettingError, nearest

MISTAKE, INTERRUPTED = 2, 130
PLACES = (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOSPC, errno.ENOTDIR, errno.EISDIR)  # a path that does not do
SPINS = "50000"  # rounds of waiting: enough between the parts of a short step, too few to be in the way of a long one


def main(words: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code: 0 done, 2 a mistake in what was asked (one line on standard error),
    130 interrupted. Any other exception is ours and propagates, but for places that cannot be read or written.

    words: the command line without the program's name; default sys.argv.
    """
    words = list(sys.argv[1:] if words is None else words)
    if not words or words[0] in ("-h", "--help"):
        print(overview())
        return 0
    verb = "version" if words[0] == "--version" else words[0]
    _let_threads_rest()
    try:
        return _perform(_chosen(verb), verb, words[1:])
    except OvertoneError as error:
        return _say(" ".join(str(error).split()), MISTAKE)
    except KeyboardInterrupt as stop:  # who knows more than RESUME says puts it into the exception
        resume = getattr(sys.modules.get(f"overtone.cli.{verb}"), "RESUME", "Nothing half-written was left behind.")
        return _say(f"interrupted. {str(stop) or resume}", INTERRUPTED)
    except SystemExit as stop:  # tyro, after printing help
        return int(stop.code or 0)
    except BrokenPipeError:  # the reader of a pipe went away: `overtone list edits | head -1`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except OSError as error:
        if error.errno not in PLACES:
            raise
        return _say(
            f"{error.filename or 'a file'}: {error.strerror}. Name another place, or make room in this one.", MISTAKE
        )


def _let_threads_rest() -> None:
    """Torch's threads that wait for work spin for milliseconds, on cores that compiled kernels need. OpenMP reads this
    when torch is loaded; who set a policy keeps it."""
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault("GOMP_SPINCOUNT", SPINS)


def _chosen(verb: str) -> ModuleType:
    if verb.startswith("-"):
        raise SettingError(f"{verb} stands before the verb; options follow it: overtone VERB {verb}.")
    if verb not in VERBS:
        raise SettingError(f"there is no verb {verb!r}.{nearest(verb, VERBS)} The verbs are {', '.join(VERBS)}.")
    return import_module(f"overtone.cli.{verb}")


def _perform(module: ModuleType, verb: str, words: list[str]) -> int:
    from overtone.cli._parse import parse

    kind = module.options_for(words) if hasattr(module, "options_for") else module.Options
    words = module.in_order(words) if hasattr(module, "in_order") else words
    words = [kind.ALIASES.get(name, name) + sign + value for name, sign, value in (w.partition("=") for w in words)]
    options = parse(kind, verb, words)
    with _quiet(options.quiet):
        if options.json:
            with contextlib.redirect_stdout(sys.stderr):  # whatever a library prints: standard output is the document's
                data = module.run(options)
            _print_json(data)
        else:
            _show(module, module.run(options))
    sys.stdout.flush()
    return 0


@contextlib.contextmanager
def _quiet(quiet: bool):
    before = progress.QUIET
    progress.QUIET = before or quiet
    try:
        yield
    finally:
        progress.QUIET = before


def _print_json(data: Any) -> None:
    import json

    print(json.dumps(data, indent=1, allow_nan=False))


def _show(module: ModuleType, data: Any) -> None:
    from rich.console import Console

    module.show(data, Console(highlight=False, emoji=False))


def _say(line: str, code: int) -> int:
    print(f"overtone: {line}", file=sys.stderr)
    return code
