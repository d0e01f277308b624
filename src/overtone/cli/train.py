"""overtone train: one dictionary of the catalogue on stored states or on arrays."""

from __future__ import annotations

import inspect
import shlex
import shutil
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, fields, make_dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

import tyro

from overtone.cli._parse import OF_TRAINING, Shell

if TYPE_CHECKING:
    from rich.console import Console

SAVED = "The training was saved: run the same command again to go on from there."
NOTHING = "Nothing was saved yet."
RESUME = "Run the same command again."
FLAGS = ("--json", "--quiet", "--restart")
NO_K = (
    "This kind has no number of active latents to set; taken so that one command line serves all kinds, and left out."
)
JUDGED = 16_384  # rows, of those trained on, from which the figures are taken


@dataclass(frozen=True, kw_only=True)
class Options(Shell):
    """Train a dictionary on stored states or arrays and keep it in --out, with a README that says what it is.

    Each kind of dictionary adds options of its own: overtone train top_k --help shows those of top_k.

    Example: overtone train top_k --activations runs/states/0123456789abcdef --site residual.3 --n-latents 512 --k 16
    """

    ALIASES: ClassVar[Mapping[str, str]] = OF_TRAINING

    kind: tyro.conf.Positional[str]
    """Kind of dictionary; `overtone list dictionaries` knows them."""
    activations: tuple[str, ...] = ("runs/states",)
    """Folder of stored states (`overtone collect` makes it), or a .safetensors or .npy file of (rows, width) arrays, or
    a folder of such files (also: --store). Stores of several models over the same tokens: base=FOLDER chat=FOLDER."""
    site: tuple[str, ...] = ()
    """Site, or array of a file, to train on, several for a crosscoder (of several models: base:residual.3
    chat:residual.3); may be left out where there is one only."""
    target: str = ""
    """Site, or array, to predict, for transcoders."""
    gradients: str = ""
    """Array of gradients, for kinds that select by them; a store knows its own."""
    n_tokens: int = 1_000_000
    """Rows to train on, over as many passes as that takes (also: --tokens; and --latents for --n-latents)."""
    batch_rows: int = 2048
    """Rows per update."""
    lr: float | None = None
    """Peak learning rate; by default the kind's own."""
    seed: int = 0
    """Seed of everything random."""
    device: str = "cpu"
    """Where it is trained: cpu, cuda, cuda:1, ..."""
    split: Literal["rows", "latents"] | None = None
    """What the processes that torchrun started share: the rows of each batch, or the latents of the dictionary."""
    restart: bool = False
    """Start over where an interrupted training lies beside --out, instead of going on with it."""
    out: Path = Path("runs/dictionary")
    """Folder of the dictionary."""


def options_for(words: list[str]) -> type[Options]:
    """The options of `train` with those of the kind of dictionary that `words` name, if they do.

    `--k` is `--target-l0` for kinds whose price is steered to it. Raises SettingError for an unknown kind, naming the
    nearest one.
    """
    at = _kind_among(words)
    if at is None:
        return Options
    from overtone.cli._knobs import knobs
    from overtone.core.catalogue import lookup

    entry = lookup("dictionaries", words[at])
    source = f"Source: {entry.paper}." if entry.paper else "A classic."
    own = knobs(entry.thing)
    usage = (inspect.getdoc(Options) or "").replace("train top_k --activations", f"train {entry.name} --activations")
    names = {knob for knob, *_ in own}
    usage = usage if "k" in names else usage.replace("--k 16", "--target-l0 16" if "target_l0" in names else "")
    told = f"{entry.name}: {entry.summary}\n\n{source}\n\n{usage.strip()}"
    steered = {"--k": "--target-l0"} if "target_l0" in names and "k" not in names else {}
    if not names & {"k", "target_l0"}:
        unset: Any = field(default=None)
        own.append(("k", Annotated[float | None, tyro.conf.arg(help=NO_K)], unset))
    namespace = {"__doc__": told, "__module__": __name__, "ALIASES": {**Options.ALIASES, **steered}}
    namespace["VERB"] = f"train {entry.name}"
    return make_dataclass("Options", own, bases=(Options,), frozen=True, kw_only=True, namespace=namespace)


def in_order(words: list[str]) -> list[str]:
    """The same words with the kind in front."""
    at = _kind_among(words)
    return words if at is None else [words[at], *words[:at], *words[at + 1 :]]


def _kind_among(words: list[str]) -> int | None:
    """Where the kind stands, which may be behind options: the first word of a known kind that is the value of none."""
    if not words or not words[0].startswith("-"):
        return 0 if words else None
    if all(word.startswith("-") for word in words):  # nothing is imported for help
        return None
    from overtone.core.catalogue import entries

    known, before = entries("dictionaries"), ["", *words]
    alone = (i for i, word in enumerate(words) if word in known and (before[i] in FLAGS or before[i][:1] != "-"))
    return next(alone, None)


def run(options: Any) -> dict[str, Any]:
    """Where the dictionary lies and how well it does: error, L0 and dead share on rows it was trained on, speed."""
    from overtone.core.artifacts import require_room

    require_room(options.out, "dictionary")
    unfinished = options.out.with_name(f".{options.out.name}.training")
    with _telling_what_is_saved(unfinished):
        return _trained(options, unfinished)


def _trained(options: Any, unfinished: Path) -> dict[str, Any]:
    """The same; unfinished: where the training is saved meanwhile."""
    from overtone.cli._knobs import made
    from overtone.cli._sources import training_source
    from overtone.core.catalogue import lookup
    from overtone.training.distributed.join import company
    from overtone.training.fit import fit

    preset = made(lookup("dictionaries", options.kind).thing, options)
    _check_gradients(preset, options)
    given = training_source(options.activations, options.site, options.target, options.gradients)
    began = time.perf_counter()
    if left_out := _left_out(preset, options):
        print(f"overtone: {options.kind} has no number of active latents to set: --k is left out.", file=sys.stderr)
    with company(options.split) as world:
        fitted = fit(
            preset, given.source, site=given.sites or None, target=given.target, lr=options.lr,
            n_tokens=options.n_tokens, batch_rows=options.batch_rows, seed=options.seed, checkpoint=unfinished,
            resume=not options.restart, device=options.device, split=options.split,
            name=f"{options.kind} {given.names['trained on']}",
        )  # fmt: skip
    if world is not None and not world.first:
        raise SystemExit(0)  # the first process writes and speaks for all
    speed = fitted.record[-1].tokens_per_s if fitted.record else fitted.n_rows / (time.perf_counter() - began)
    told = _kept(options, fitted, given, {**_figures(fitted, given), "tokens_per_s": speed})
    if fitted.record:  # else it is another training's
        shutil.rmtree(unfinished, ignore_errors=True)
    return {**told, "left_out": left_out}


def _left_out(preset: Any, options: Any) -> list[str]:
    """Options that were given and mean nothing to this kind."""
    return ["k"] if getattr(options, "k", None) is not None and not {"k", "target_l0"} & set(preset.to_dict()) else []


@contextmanager
def _telling_what_is_saved(unfinished: Path) -> Iterator[None]:
    """Let an interrupt say whether there is something to go on from."""
    from overtone.core.artifacts import MANIFEST

    try:
        yield
    except KeyboardInterrupt:
        raise KeyboardInterrupt(SAVED if (unfinished / MANIFEST).exists() else NOTHING) from None


def _check_gradients(preset: Any, options: Any) -> None:
    """Raise SettingError where arrays are to be selected by gradients that were not named, or are named in vain."""
    from overtone.activations.array import is_arrays
    from overtone.core.errors import SettingError

    if options.gradients and "g" not in preset.needs:
        raise SettingError(f"{options.kind} does not select by gradients: leave --gradients out, or train g_sae.")
    if "g" in preset.needs and not options.gradients and any(map(is_arrays, options.activations)):
        raise SettingError(
            f"{options.kind} selects by gradients of a loss: name their array, of the shape of the states (--gradients "
            "NAME), or train on a store that was collected with them."
        )


def _figures(fitted: Any, given: Any) -> dict[str, float]:
    from overtone.evaluate.reconstruction import reconstruction
    from overtone.training.feed import make_feed

    x, y, *_ = make_feed(given.source, [fitted.job.ask], JUDGED, fitted.seed).sample(fitted.job.ask, JUDGED)
    codes = fitted.dictionary.encode(x)
    found = reconstruction(x if y is None else y, fitted.dictionary.decode(codes, x), codes)
    return {"error": found.fvu, "l0": found.l0, "dead_share": found.dead_share, "rows": len(x)}


def _kept(options: Any, fitted: Any, given: Any, figures: dict[str, float]) -> dict[str, Any]:
    """The dictionary saved with its README; what is printed."""
    from overtone.dictionaries.readme import readme

    rows = figures.pop("rows")
    page = readme(fitted.dictionary, command=_spelled(options), names=given.names, figures=figures, seed=fitted.seed)
    folder = fitted.save(options.out, sources=given.fingerprints, facts=given.facts, page=page)
    whole = {"tokens": rows, "unexplained": figures["error"], "l0": figures["l0"], "share_dead": figures["dead_share"]}
    last = fitted.record[-1].to_dict() if fitted.record else whole
    return {"dictionary": str(folder), "kind": options.kind, "site": given.names["trained on"], **figures, "last": last}


def _spelled(options: Any) -> str:
    """The command line that these options stand for, without what is left as by default."""
    words = ["overtone", "train", options.kind]
    for f in fields(options):
        value, name = getattr(options, f.name), f.name.replace("_", "-")
        if f.name in ("kind", "json", "quiet") or value == f.default:
            continue
        if isinstance(value, bool):
            words.append(f"--{'' if value else 'no-'}{name}")
        else:
            words += [f"--{name}", *map(str, value if isinstance(value, tuple) else (value,))]
    return shlex.join(words)


def show(data: dict[str, Any], console: Console) -> None:
    """Where the dictionary lies, and its figures."""
    console.print(f"{data['kind']} at {data['site']}: [bold]{data['dictionary']}[/bold]", soft_wrap=True)
    for name, form in (("error", ".4g"), ("l0", ".4g"), ("dead_share", ".4g"), ("tokens_per_s", ",.0f")):
        console.print(f"  {name}: {data[name]:{form}}")
