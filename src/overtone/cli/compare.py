"""overtone compare: kinds of dictionary side by side on one set of activations."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from tyro.conf import Positional

from overtone.cli._parse import OF_TRAINING, Shell

if TYPE_CHECKING:
    from rich.console import Console

    from overtone.evaluate.compare import Sample

RESUME = "Every finished dictionary was kept: run the same command again to go on from there."

# Key of a standing -> decimal places, factor, whether the interval is shown.
COLUMNS = {
    "fvu": (1, 100.0, True), "l0": (1, 1.0, True), "dead_share": (1, 100.0), "stability": (2,), "seconds": (1,),
    "matmul_units": (1,),
}  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Options(Shell):
    """Train kinds of dictionary on the same rows at equal width and number of active latents, and compare error,
    sparsity, dead latents, stability over seeds and cost on documents held out.

    Example: overtone compare top_k batch_top_k gated --activations runs/states/0123456789abcdef --site residual.3
    """

    ALIASES: ClassVar[Mapping[str, str]] = OF_TRAINING

    kinds: Positional[tuple[str, ...]] = ()
    """Kinds to compare; none: all that can be trained on states alone."""
    activations: str = ""
    """Folder of stored states, or a .safetensors or .npy file of rows; by default states of the bundled reasoner."""
    site: str = ""
    """Site, or array of a file, to compare at; may be left out where there is one only (default for the bundled
    reasoner: residual.3)."""
    gradients: str = ""
    """Array of gradients, for kinds that select by them; a store knows its own."""
    n_latents: int = 512
    """Latents of every dictionary."""
    k: tuple[int | float, ...] = (16,)
    """Active latents per row that everyone is asked for; several give a curve. A fraction leaves out kinds that choose
    within each row."""
    n_tokens: int = 200_000
    """Rows to train each on, over as many passes as that takes."""
    batch_rows: int = 512
    """Rows per update; with fewer than some 300 updates, kinds whose price is steered are not done."""
    seeds: int = 3
    """Repetitions; each splits the documents anew and starts from other values."""
    lr: float | None = None
    """Peak learning rate; by default each kind's own."""
    device: str = "cpu"
    """Where they are trained: cpu, cuda, cuda:1, ... (what is fitted as a whole is on the CPU)."""
    rounds: int = 50
    """Most rounds of kinds that are fitted in rounds over many rows (nmf, snmf, ica)."""
    out: Path = Path("runs/compare")
    """Folder of lineup.json, lineup.html and trained/, which holds every finished dictionary: they are used again where
    settings and activations are the same."""


def run(options: Options) -> dict[str, Any]:
    """The lineup as plain data; it is kept in --out, with its page."""
    from overtone.core.artifacts import write_json
    from overtone.evaluate.lineup.lineup import lineup
    from overtone.evaluate.lineup.page import render

    found = lineup(
        _sample(options), n_latents=options.n_latents, ks=options.k, seeds=range(options.seeds), names=options.kinds,
        n_tokens=options.n_tokens, batch_rows=options.batch_rows, lr=options.lr, rounds=options.rounds,
        keep=options.out / "trained", device=options.device,
    )  # fmt: skip
    data = found.to_dict()
    options.out.mkdir(parents=True, exist_ok=True)
    write_json(options.out / "lineup.json", data)
    (options.out / "lineup.html").write_text(render(data), encoding="utf-8")
    return {**data, "page": str(options.out / "lineup.html")}


def _sample(options: Options) -> Callable[[int], Sample]:
    """Seed -> the rows, split by document."""
    from overtone.core.errors import SettingError
    from overtone.core.sites import Site

    if not options.activations:
        from overtone.evaluate.testbed import reasoner_states

        site = options.site or "residual.3"
        states = reasoner_states([site], 200, gradient="mean")
        return lambda seed: states.sample(site, seed)
    from overtone.activations.array import is_arrays
    from overtone.activations.opening import open_activations
    from overtone.cli._sources import training_source
    from overtone.evaluate.lineup.lineup import by_document

    if is_arrays(options.activations):
        sites = (options.site,) if options.site else ()
        given = training_source((options.activations,), sites, "", options.gradients)
        batch, site = given.source, given.sites[0]
        g = None if batch.g is None else batch.g[site]
        return lambda seed: by_document(batch.at(site), batch.where.document, seed, g=g)

    source = open_activations(options.activations)
    if not options.site and len(source.sites) > 1:
        raise SettingError(f"there are states of {', '.join(map(str, source.sites))}: say which, e.g. --site.")
    site = Site.parse(options.site) if options.site else next(iter(source.sites))
    batch = source.all()
    g = None if batch.g is None else batch.g.get(site)
    return lambda seed: by_document(batch.at(site), batch.where.document, seed, g=g)


def show(data: dict[str, Any], console: Console) -> None:
    """The table, what was left out, and where the page lies."""
    from overtone.cli._columns import table_of, written

    several = len(data["settings"]["ks"]) > 1
    table = table_of("error %", "active", "dead %", "stable", "seconds", "products")
    asked: int | float | None = 0
    for one in data["standings"]:
        if one["k"] is None and asked is not None:
            table.add_row("[italic]without a budget[/italic]")
        asked = one["k"]
        label = one["name"] + (f" k={one['k']}" if one["k"] and several else "")
        label += f" ({one['n_latents']})" if one["n_latents"] < data["settings"]["n_latents"] else ""
        cells = (written(one[key], *how) for key, how in COLUMNS.items())
        table.add_row(label, *cells)
    console.print(table)
    console.print(
        "error: of the held-out variance that is missed; dead: of the latents; stable: cosine of atoms between seeds; "
        "seconds: of one training; products: dense ones of one step; (n): latents, where fewer than asked for; "
        "±: half the 95 % interval over seeds"
    )
    for name, why in data["left_out"].items():
        console.print(f"left out: {name}: {why}", soft_wrap=True)
    console.print(f"page: [bold]{data['page']}[/bold]", soft_wrap=True)
