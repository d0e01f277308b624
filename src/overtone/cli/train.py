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

RESUME = "The training was saved: run the same command again to go on from there."


@dataclass(frozen=True, kw_only=True)
class Options(Shell):
    """Train a dictionary on stored states and keep it in --out.

    Each kind of dictionary adds options of its own: overtone train top_k --help shows those of top_k.

    Example: overtone train top_k --store runs/states/0123456789abcdef --site residual.3 --n-latents 512 --k 16
    """

    kind: tyro.conf.Positional[str]
    """Kind of dictionary; `overtone list dictionaries` knows them."""
    store: Path = Path("runs/states")
    """Folder of stored states (`overtone collect` makes it)."""
    site: str = ""
    """Site to train on; may be left out where the store holds one only."""
    n_tokens: int = 1_000_000
    """Rows to train on, over as many passes as that takes."""
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
    from overtone.activations.store import ActivationStore
    from overtone.training.distributed.join import company
    from overtone.training.fit import fit

    store = ActivationStore.open(options.store)
    unfinished = options.out.with_name(f".{options.out.name}.training")
    with company(options.split) as world:
        fitted = fit(
            options.preset,
            store,
            site=options.site or None,
            lr=options.lr,
            n_tokens=options.n_tokens,
            batch_rows=options.batch_rows,
            seed=options.seed,
            checkpoint=unfinished,
            split=options.split,
        )
    if world is not None and not world.first:
        raise SystemExit(0)  # the first process writes and speaks for all
    folder = fitted.save(options.out, sources={"store": store.manifest.fingerprint})
    shutil.rmtree(unfinished, ignore_errors=True)
    last = fitted.record[-1].to_dict() if fitted.record else {}
    return {
        "dictionary": str(folder),
        "kind": options.kind,
        "site": str(fitted.job.site or store.sites[0]),
        "last": last,
    }


def show(data: dict[str, Any], console: Console) -> None:
    """Where the dictionary lies, and the last record of its training."""
    console.print(f"{data['kind']} at {data['site']}: [bold]{data['dictionary']}[/bold]", soft_wrap=True)
    for name, value in data["last"].items():
        console.print(f"  {name}: {value:.4g}" if isinstance(value, float) else f"  {name}: {value}")
