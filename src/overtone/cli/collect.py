"""overtone collect: a model's states over texts or traces, computed once and kept."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from overtone.cli._models import named_model, positions_of, read_traces, require_there
from overtone.cli._parse import Shell
from overtone.core.settings import require

if TYPE_CHECKING:
    from rich.console import Console

RESUME = "What was stored is kept: run the same command again to go on from there."


@dataclass(frozen=True, kw_only=True)
class Options(Shell):
    """Store a model's states at some sites, one row per token or per reasoning step, in a folder below --out.

    Started several times at once, the same command shares the work.

    Example: overtone collect --model gpt2 --texts corpus.jsonl --sites residual.5 residual.8 --out runs/states
    """

    model: str = "bundled"
    """`bundled`, a folder in transformers format, or a hub name."""
    texts: str = ""
    """File of texts (.jsonl, .json, .txt); an object's `response` is read as what the model answered."""
    traces: str = ""
    """Folder of sampled traces, instead of texts."""
    sites: tuple[str, ...] = ()
    """Sites to read, such as residual.3 (`overtone list sites --model ...` lists them)."""
    rows: Literal["tokens", "next", "prev", "mean", "first_k"] = "tokens"
    """What a row is: a token, or a reasoning step read at one of four anchors."""
    dtype: Literal["float32", "bfloat16", "float16"] = "float32"
    """Type of the numbers on disk."""
    gradient: Literal["none", "mean", "sum"] = "none"
    """Store beside each state the gradient of the text's next-token loss, its mean or sum over tokens (for g_sae)."""
    device: str = "cpu"
    """Where the model runs: cpu, cuda, cuda:1, ..."""
    limit: int | None = None
    """Read at most so many texts or traces."""
    out: Path = Path("runs/states")
    """Folder that holds the stores; each gets a name of its own, made from its content."""

    def __post_init__(self) -> None:
        require(bool(self.texts) != bool(self.traces), "give either --texts FILE or --traces FOLDER.")
        require(bool(self.sites), "name at least one site, such as --sites residual.3.")
        require(self.limit is None or self.limit >= 1, f"limit={self.limit}: read at least one text.")


def run(options: Options) -> dict[str, Any]:
    """Where the store lies and what it holds."""
    from overtone.activations.store import collect
    from overtone.activations.stream import ActivationStream
    from overtone.core.sites import Site

    sites = [Site.parse(name) for name in options.sites]
    require_there(options.texts, options.traces)
    model = named_model(options.model, options.device)
    traces = read_traces(model, options.texts, options.traces, options.limit)
    gradient = None if options.gradient == "none" else options.gradient
    stream = ActivationStream(model, traces, sites, positions_of(options.rows, model), gradient=gradient)
    store = collect(options.out, stream, dtype=options.dtype)
    widths = {str(site): width for site, width in store.widths.items()}
    return {"store": str(store.folder), "model": model.name, "rows": store.n_rows, "sites": widths}


def show(data: dict[str, Any], console: Console) -> None:
    """What was stored, and the command that may come next."""
    for site, width in data["sites"].items():
        console.print(f"{site}: {data['rows']} rows of width {width}")
    site = next(iter(data["sites"]))
    console.print(f"store: [bold]{data['store']}[/bold]", soft_wrap=True)
    command = f"overtone train top_k --store {data['store']} --site {site} --n-latents 512"
    console.print(f"next:  {command}", soft_wrap=True)  # in one line, to be copied
