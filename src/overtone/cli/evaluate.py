"""overtone evaluate: how good a dictionary is, whoever trained it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

import tyro

from overtone.cli._parse import Shell
from overtone.formats.choices import Choices

if TYPE_CHECKING:
    from rich.console import Console

    from overtone.cli._looked_at import LookedAt, Subject
    from overtone.formats.exchange import Imported

RESUME = "Nothing was written: run the same command again."


@dataclass(frozen=True, kw_only=True)
class Options(Shell):
    """Say how good a dictionary is: what it misses, how sparse it is, how long its codes are, and what its model says
    when its reconstruction takes the place of the states; each beside its controls.

    It may be in any format that `overtone convert` reads. Without --activations, and without a model, it is tried on
    states of the bundled reasoner, if it belongs to that.

    Example: overtone evaluate runs/dictionary --activations runs/states --pursuit orthogonal
    """

    ALIASES: ClassVar[Mapping[str, str]] = {"--store": "--activations"}

    dictionary: Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="DICTIONARY")]
    """A file, a folder, or a hub name (org/repo, org/repo/sub/folder)."""
    activations: tuple[str, ...] = ()
    """Folder of stored states, or a .safetensors or .npy file (or folder) of rows (also: --store). Stores of several
    models: base=FOLDER chat=FOLDER."""
    site: tuple[str, ...] = ()
    """Site, or array of a file, that it reads, several for a crosscoder; by default what it says itself."""
    target: str = ""
    """Site, or array, that it predicts, for transcoders; by default what it says itself."""
    gradients: str = ""
    """Array of gradients, for kinds that select by them; a store knows its own."""
    documents: str = ""
    """Documents to look at, FIRST:STOP by number, either may be left out; of an array, rows."""
    n_rows: int = 20_000
    """Rows to look at, at most."""
    model: str = ""
    """Model to splice it into, and to read states of where there are no --activations: `bundled`, a folder, or a hub
    name; by default the bundled reasoner, if it belongs to that."""
    texts: str = ""
    """File of texts for the model (.jsonl, .json, .txt); by default written traces, for the bundled one."""
    traces: str = ""
    """Folder of sampled traces, instead of texts."""
    rows: Literal["tokens", "next", "prev", "mean", "first_k"] | None = None
    """What a row of the model is, as for `collect`; by default as the dictionary was trained, else tokens."""
    spliced: int = 40
    """Texts in which it is spliced into the model, at most; 0: none."""
    pursuit: tuple[Literal["matching", "orthogonal", "gradient"], ...] = ()
    """Pursuits that find codes on its atoms anew."""
    k: int | None = None
    """Active latents of pursuits and controls; by default the dictionary's own number."""
    from_format: Annotated[str, tyro.conf.arg(name="from")] = ""
    """Format to read; by default it is recognised from the files."""
    choices: Annotated[Choices, tyro.conf.arg(name="")] = field(default_factory=Choices)
    device: str = "cpu"
    """Where dictionary and model run: cpu, cuda, cuda:1, ..."""
    seed: int = 0
    """Seed of random atoms, of which rows are looked at, and of intervals."""
    out: Path | None = None
    """File to keep the report in, as JSON."""


def run(options: Options) -> dict[str, Any]:
    """The report as plain data; a copy is kept in --out."""
    from overtone.cli._looked_at import rows_of_model, stored_rows, subject_of
    from overtone.core.artifacts import write_json
    from overtone.core.devices import usable
    from overtone.core.errors import OvertoneError, SettingError
    from overtone.core.settings import require
    from overtone.evaluate.quality import quality
    from overtone.formats.exchange import import_dictionary

    require(options.n_rows >= 2 and options.spliced >= 0, "--n-rows is 2 or more, --spliced 0 or more.")
    read = import_dictionary(options.dictionary, options.from_format, options.choices)
    read.dictionary.to(usable(options.device))
    subject, why = None, ""
    try:
        subject = subject_of(read, options)
    except OvertoneError as error:
        if options.model or options.texts or options.traces:
            raise
        why = str(error)
        if not options.activations:
            raise SettingError(f"without --activations it is tried on the bundled reasoner, but {why}") from None
    if options.activations:
        looked = stored_rows(read, options)
    else:
        assert subject is not None
        looked = rows_of_model(read, options, subject)
    rows = looked.rows
    found = quality(
        read.dictionary, rows.x, y=rows.y, g=rows.g, groups=looked.groups, pursuits=options.pursuit, k=options.k,
        seed=options.seed,
    )  # fmt: skip
    spliced, no = (None, why) if subject is None else _spliced(read, options, subject)
    data = _report(read, options, looked, found, spliced, {"splicing": no} if no else {})
    if options.out is not None:
        options.out.parent.mkdir(parents=True, exist_ok=True)
        write_json(options.out, data)
    return data


def _spliced(read: Imported, options: Options, subject: Subject) -> tuple[Any, str]:
    """What the model says with the dictionary in its place; or None, and why."""
    from overtone.cli._looked_at import rule_of_rows
    from overtone.core.errors import CapabilityError
    from overtone.evaluate.faithfulness import faithfulness, spliced_arms

    if not options.spliced:
        return None, "--spliced 0"
    if (rule := rule_of_rows(read, options)) != "tokens":
        return None, f"its rows are steps (anchor {rule}), and splicing replaces the states of tokens"
    try:
        arms = spliced_arms(read.dictionary)
    except CapabilityError as error:
        return None, str(error).split(". ")[0]
    traces = subject.traces[: options.spliced]
    part = "response" if all(trace.response_ids for trace in traces) else "all"
    return faithfulness(subject.model, traces, subject.sites[0], arms, part=part, seed=options.seed, quiet=None), ""


def _report(
    read: Imported, options: Options, looked: LookedAt, found: Any, spliced: Any, left_out: Mapping[str, str]
) -> dict[str, Any]:
    from overtone.core.artifacts import library_version
    from overtone.core.report import Report

    dictionary, origin = read.dictionary, read.dictionary.origin
    about = {
        "folder": options.dictionary, "format": read.format, "kind": origin.get("preset") or read.format,
        "site": "+".join(options.site) or str(read.facts.get("site") or ""),
        "target": options.target or str(read.facts.get("target") or ""),
        "n_latents": dictionary.n_latents, "width": dictionary.width, "notes": list(read.notes),
    }  # fmt: skip
    rows = {
        "n": len(looked.rows.x), "groups": len(set(looked.groups)), "from": looked.told,
        "trained_on": looked.trained_on, "why": looked.why, "documents": options.documents,
    }  # fmt: skip
    sections = {"dictionary": about, "rows": rows, **found.to_dict()}
    sections["left_out"] = {**sections["left_out"], **left_out}
    findings = found.findings()
    if spliced is not None:
        findings += spliced.findings()
        sections["spliced"] = {
            "texts": len(spliced.tokens), "predictions": int(spliced.tokens.sum()), "arms": spliced.table(),
        }  # fmt: skip
    provenance = {"version": library_version(), "seed": options.seed, "trained": dict(origin)}
    return Report(f"{about['kind']}: how good it is", findings, provenance, sections).to_dict()


def show(data: dict[str, Any], console: Console) -> None:
    """What was looked at, a table per question with a line that explains it, and what was left out."""
    about, rows = data["dictionary"], data["rows"]
    where = " -> ".join(filter(None, (about["site"], about["target"])))
    place = f" at {where}" if where else ""
    console.print(f"{about['kind']}: {about['n_latents']} latents of width {about['width']}{place}", soft_wrap=True)
    console.print(f"rows: {rows['n']} of {rows['groups']} groups (documents, problems): {rows['from']}", soft_wrap=True)
    seen = {True: "yes", False: "no", None: "not known"}[rows["trained_on"]]
    console.print(f"seen in training: {seen}: {rows['why']}\n", soft_wrap=True)
    _show_codings(data, console)
    if data["views"]:
        names = about["site"].split("+") if about["site"] else [f"view {i}" for i in range(len(data["views"]))]
        views = zip(names, data["views"], strict=True)
        console.print("error by view: " + ", ".join(f"{name} {100 * share:.2f} %" for name, share in views))
    if data["lengths"]:
        _show_lengths(data["lengths"], console)
    if "spliced" in data:
        _show_spliced(data["spliced"], console)
    for name, why in data["left_out"].items():
        console.print(f"left out: {name}: {why}", soft_wrap=True)
    for note in about["notes"]:
        console.print(f"note: {note}", soft_wrap=True)


def _show_codings(data: dict[str, Any], console: Console) -> None:
    from overtone.cli._columns import table_of, written

    table = table_of("error %", "cosine", "active", "dead %")
    for one in data["codings"]:
        whole = one["n_rows"] == data["rows"]["n"]
        table.add_row(
            one["name"] + ("" if whole else f" ({one['n_rows']} rows)"), written(one["fvu"], 2, 100.0, True),
            written(one["cosine"], 3), written(one["l0"], 1),
            written(one["dead_share"] if whole else None, 1, 100.0),  # it falls as more rows are looked at
        )  # fmt: skip
    console.print(table)
    console.print(
        f"error: of the rows' variance that is missed; active: latents per row, {data['k']} for pursuits and controls; "
        "dead: of the latents, in these rows; ±: half the 95 % interval over groups; components: of these rows"
    )


def _show_lengths(lengths: dict[str, Any], console: Console) -> None:
    least = f", which takes cosines of {lengths['bound']:.2f} or more between atoms" if lengths["bound"] else ""
    most = f" (largest there is: {lengths['coherence']:.2f})" if "coherence" in lengths else ""
    console.print(
        f"\nlengths: codes are {lengths['excess']:.2f} times as long as states, off by {100 * lengths['gap']:.0f} %"
        f"{least}{most}; medians over rows, 1 and 0 % where active atoms are orthogonal"
    )


ARMS = {
    "clean": "untouched", "spliced": "its reconstruction", "true gradients": "by true gradients",
    "drawn gradients": "by drawn gradients", "mean": "the mean state", "zero": "zeros",
}  # fmt: skip


def _show_spliced(spliced: dict[str, Any], console: Console) -> None:
    from overtone.cli._columns import table_of, written

    arms = {one["name"]: one for one in spliced["arms"]}
    by_gradients = "true gradients" in arms
    table = table_of("loss", "KL", "saved %", "of mean %", *(["knows"] if by_gradients else []))
    for name, label in ARMS.items():
        if one := arms.get(name):
            last = [written(one["label_knowledge"], 2, 1.0, True)] if by_gradients else []
            saved = (written(one[key], 1, 100.0, True) for key in ("recovered", "recovered_mean"))
            table.add_row(label, written(one["cross_entropy"], 2), written(one["kl"], 2, 1.0, True), *saved, *last)
    console.print()
    console.print(table)
    where = f"spliced in at {spliced['predictions']} positions of {spliced['texts']} texts"
    leak = "; knows: nats by which the loss is better than the KL lets expect. Codes selected by true gradients are "
    leak += "told the next token (drawn: one that the model draws itself): do not probe or steer with them"
    console.print(
        f"{where}; loss, and KL to the untouched model: nats per prediction; saved: of the loss that zeros, or the "
        f"mean state, cost{leak if by_gradients else ''}"
    )
