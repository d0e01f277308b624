"""overtone train: one dictionary of the catalogue on stored states."""

from __future__ import annotations

import shutil
from dataclasses import dataclass, field, make_dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import tyro

from overtone.cli._parse import Shell

if TYPE_CHECKING:
    from rich.console import Console

ALIASES = {"--store": "--activations", "--latents": "--n-latents", "--tokens": "--n-tokens"}
RESUME = "The training was saved: run the same command again to go on from there."


@dataclass(frozen=True, kw_only=True)
class Options(Shell):
    """Train a dictionary on stored states and keep it in --out.

    Each kind of dictionary adds options of its own: overtone train top_k --help shows those of top_k.

    Example: overtone train top_k --activations runs/states/0123456789abcdef --site residual.3 --n-latents 512 --k 16
    """

    kind: tyro.conf.Positional[str]
    """Kind of dictionary; `overtone list dictionaries` knows them."""
    activations: Path = Path("runs/states")
    """Folder of stored states (`overtone collect` makes it), or a .safetensors or .npy file of rows (also: --store)."""
    site: tuple[str, ...] = ()
    """Site to train on, several for a crosscoder; may be left out where there is one only."""
    target: str = ""
    """Site to predict, for transcoders."""
    n_tokens: int = 1_000_000
    """Rows to train on, over as many passes as that takes (also: --tokens; and --latents for --n-latents)."""
    batch_rows: int = 2048
    """Rows per update."""
    lr: float | None = None
    """Peak learning rate; by default the kind's own."""
    seed: int = 0
    """Seed of everything random."""
    split: Literal["rows", "latents"] | None = None
    """What the processes that torchrun started share: the rows of each batch, or the latents of the dictionary."""
    out: Path = Path("runs/dictionary")
    """Folder of the dictionary."""


def options_for(words: list[str]) -> type[Options]:
    """The options of `train` with those of the kind of dictionary that `words` begin with, if they do.

    Raises SettingError for an unknown kind, naming the nearest one.
    """
    if not words or words[0].startswith("-"):
        return Options
    from overtone.core.catalogue import lookup

    preset = Annotated[lookup("dictionaries", words[0]).thing, tyro.conf.arg(name="")]
    namespace = {"__doc__": Options.__doc__, "__module__": __name__}
    return make_dataclass(
        "Options", [("preset", preset, field())], bases=(Options,), frozen=True, kw_only=True, namespace=namespace
    )


def run(options: Any) -> dict[str, Any]:
    """Where the dictionary lies and how well it does on the last batches of its training."""
    from overtone.activations.opening import open_activations
    from overtone.training.distributed.join import company
    from overtone.training.fit import fit

    source = open_activations(options.activations)
    unfinished = options.out.with_name(f".{options.out.name}.training")
    with company(options.split) as world:
        fitted = fit(
            options.preset,
            source,
            site=options.site or None,
            target=options.target or None,
            lr=options.lr,
            n_tokens=options.n_tokens,
            batch_rows=options.batch_rows,
            seed=options.seed,
            checkpoint=unfinished,
            split=options.split,
        )
    if world is not None and not world.first:
        raise SystemExit(0)  # the first process writes and speaks for all
    folder = fitted.save(options.out, sources={"store": source.fingerprint})
    shutil.rmtree(unfinished, ignore_errors=True)
    last = fitted.record[-1].to_dict() if fitted.record else _measured(fitted.dictionary, source, options)
    return {
        "dictionary": str(folder),
        "kind": options.kind,
        "site": "+".join(map(str, fitted.job.sites or source.sites[:1])),
        "last": last,
    }


def _measured(dictionary: Any, source: Any, options: Any) -> dict[str, Any]:
    """What a record would say, for a dictionary that was fitted as a whole: on rows it was fitted on."""
    from overtone.core.sites import Site
    from overtone.evaluate.reconstruction import reconstruction

    batch = next(source.batches(min(options.n_tokens, 16_384)))
    x = batch.at(Site.parse(options.site[0]) if options.site else source.sites[0])
    codes = dictionary.encode(x)
    found = reconstruction(x, dictionary.decode(codes, x), codes)
    return {"tokens": len(x), "unexplained": found.fvu, "l0": found.l0, "share_dead": found.dead_share}


def show(data: dict[str, Any], console: Console) -> None:
    """Where the dictionary lies, and the last record of its training."""
    console.print(f"{data['kind']} at {data['site']}: [bold]{data['dictionary']}[/bold]", soft_wrap=True)
    for name, value in data["last"].items():
        console.print(f"  {name}: {value:.4g}" if isinstance(value, float) else f"  {name}: {value}")
