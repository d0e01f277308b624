"""overtone convert: dictionaries and directions from and to other libraries' formats."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import tyro

from overtone.cli._parse import Shell
from overtone.formats.choices import Choices

if TYPE_CHECKING:
    from rich.console import Console

RESUME = "Nothing half-written was left behind: run the same command again."


@dataclass(frozen=True, kw_only=True)
class Options(Shell):
    """Convert a dictionary: read it in one format, write it in another. docs/formats.md says what each can hold.
    Directions become a control vector of llama.cpp with --to gguf (FOLDER is then a file), and come back from one.

    What a format cannot hold goes beside it into overtone.json; what changes its form is said. Nothing is guessed:
    where a file leaves two readings open, the error names both and the option that chooses.

    Example: overtone convert runs/dictionary out/saelens --to saelens
    """

    source: Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="SOURCE")]
    """A file, a folder, or a hub name (org/repo, org/repo/sub/folder)."""
    folder: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="FOLDER")]
    """Folder to write, or file, for `gguf`."""
    to: str
    """Format to write: `overtone`, one that `overtone list formats` says it writes, or `gguf` for directions."""
    from_format: Annotated[str, tyro.conf.arg(name="from")] = ""
    """Format to read; by default it is recognised from the files."""
    site: str = ""
    """Site the dictionary belongs to, such as residual.3, where the source does not say or says otherwise."""
    model: str = ""
    """Name of the model it belongs to, where the source does not say or says otherwise."""
    split_signs: bool = False
    """Write each signed latent as two one-sided ones, for formats that know no negative values."""
    strength: float = 1.0
    """Length of the vectors of a control vector, in --unit."""
    unit: Literal["absolute", "raw", "projection", "norm"] = "absolute"
    """Unit of --strength: the states' own, the finder's length, typical projections, or mean state norms."""
    choices: Annotated[Choices, tyro.conf.arg(name="")] = field(default_factory=Choices)


def run(options: Options) -> dict[str, Any]:
    """What was read and written, whether that is exact, and notes."""
    if options.to == "gguf" or options.source.endswith(".gguf"):
        return _directions(options)
    from overtone.core.sites import Site
    from overtone.formats.exchange import convert

    facts = {"site": str(Site.parse(options.site)) if options.site else "", "model": options.model}
    read, written = convert(
        options.source,
        options.folder,
        options.to,
        format=options.from_format,
        choices=options.choices,
        facts={key: value for key, value in facts.items() if value},
        split_signs=options.split_signs,
    )
    return {
        "from": read.format,
        "to": written.format,
        "folder": str(written.folder),
        "width": read.dictionary.width,
        "n_latents": written.n_latents,
        "exact": written.exact,
        "notes": [*read.notes, *written.notes],
    }


def _directions(options: Options) -> dict[str, Any]:
    from overtone.core.settings import require
    from overtone.directions.direction import load_directions, save_directions
    from overtone.formats.control_vector import export_control_vector, import_control_vector
    from overtone.steering.strength import Strength

    if options.to == "gguf":
        directions = load_directions(options.source)
        strength = Strength(options.strength, options.unit)
        export_control_vector(directions, options.folder, strength=strength, model_hint=options.model)
    else:
        require(
            options.to == "overtone", f"--to {options.to}: a control vector becomes directions, with --to overtone."
        )
        directions = import_control_vector(options.source)
        save_directions(options.folder, directions)
    return {
        "from": "overtone" if options.to == "gguf" else "gguf",
        "to": options.to,
        "folder": str(options.folder),
        "width": directions[0].width,
        "sites": [str(direction.site) for direction in directions],
        "exact": True,
        "notes": [],
    }


def show(data: dict[str, Any], console: Console) -> None:
    """One line, and one per note."""
    what = f"{data['n_latents']} latents" if "n_latents" in data else f"directions at {', '.join(data['sites'])}"
    size = f"{what} of width {data['width']}"
    console.print(f"{data['from']} -> {data['to']}: {size}: [bold]{data['folder']}[/bold]", soft_wrap=True)
    for note in data["notes"]:
        console.print(f"  note: {note}", soft_wrap=True)
    if not data["exact"]:
        console.print("  reading it back gives the same function, not the same bits or parts")
