"""What `overtone evaluate` looks at: rows, whether a dictionary may have been trained on them, and the model and texts
that it can be spliced into."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from overtone.cli._models import BUNDLED, named_model, positions_of, read_traces, require_there
from overtone.core.errors import DataError, SettingError, ShapeError
from overtone.core.settings import require

if TYPE_CHECKING:
    from torch import Tensor

    from overtone.core.sites import Site
    from overtone.data.traces import ReasoningTrace
    from overtone.formats.exchange import Imported
    from overtone.models.hooked import HookedModel
    from overtone.training.feed import Ask, Rows

TRACES = 150  # written ones, some 22,000 tokens
PIECE = 8192  # rows read at a time
OPEN_END = 2**62


@dataclass(frozen=True, eq=False)
class Subject:
    """A model that a dictionary belongs to, at its sites, with texts; `name` is what people call the two."""

    model: HookedModel
    traces: list[ReasoningTrace]
    sites: tuple[Site, ...]
    name: str


@dataclass(frozen=True, eq=False)
class LookedAt:
    """rows: states, and targets and gradients where there are any; groups: the document of each row; told: where they
    come from; trained_on: whether the dictionary was trained on these states (None: nobody knows), and `why`."""

    rows: Rows
    groups: list[Any]
    told: str
    trained_on: bool | None
    why: str


# ----------------------------------------------------------------------------------------------------------- a subject
def subject_of(read: Imported, options: Any) -> Subject:
    """The model that is named, or the bundled one, with the texts that are named, or written ones.

    Raises SettingError if the dictionary does not belong to the bundled one and no other is named, ShapeError for a
    model of another width, and as the model's own loading.
    """
    from overtone.evaluate.testbed import unseen_traces

    name, named = options.model or BUNDLED, options.texts or options.traces
    require_there(options.texts, options.traces)
    require(not (options.texts and options.traces), "give --texts FILE or --traces FOLDER, not both.")
    require(name == BUNDLED or bool(named), f"--model {name} needs something to read: --texts FILE or --traces FOLDER.")
    sites = _sites(read, options)
    model = named_model(name, options.device)
    _require_fit(read, model, sites, chosen=bool(options.model or named))
    traces = read_traces(model, options.texts, options.traces) if named else unseen_traces(model, TRACES)
    inside = documents_of(options.documents)
    if not (traces := [trace for trace in traces if options.activations or inside(trace.document)]):
        raise SettingError(f"--documents {options.documents}: there are no such texts.")
    told = named or "written traces on problems that its training left out"
    return Subject(model, traces, sites, f"{'the bundled reasoner' if name == BUNDLED else name}, {told}")


def _sites(read: Imported, options: Any) -> tuple[Site, ...]:
    """Where the dictionary reads, as asked for or as it says itself."""
    from overtone.core.sites import parse_sites

    if named := options.site or read.facts.get("site"):
        return parse_sites("+".join(options.site) or str(named))
    raise SettingError(
        "the dictionary does not say which site of a model it belongs to: name it, e.g. --site residual.3."
    )


def _require_fit(read: Imported, model: HookedModel, sites: tuple[Site, ...], *, chosen: bool) -> None:
    """Raise unless states at these sites are what the dictionary reads."""
    known = (read.facts.get("states") or {}).get("model", "")
    other = read.facts.get("model") or ("another one" if known not in ("", model.fingerprint) else "")
    if other and not chosen and other != BUNDLED:
        raise SettingError(f"it belongs to another model ({other}): --model NAME --texts FILE names one.")
    widths = [model.width(site) for site in sites]
    if sum(widths) != read.dictionary.width:
        there = " and ".join(f"{width} at {site}" for site, width in zip(sites, widths, strict=True))
        raise ShapeError(
            f"the dictionary reads states of width {read.dictionary.width}, and those of {model.name} have {there}. "
            "Name the model and site that it was trained on (--model, --site)."
        )


# ---------------------------------------------------------------------------------------------------------------- rows
def rows_of_model(read: Imported, options: Any, subject: Subject) -> LookedAt:
    """States of the subject over its texts, where the dictionary reads them."""
    from overtone.activations.positions import AllTokens
    from overtone.activations.stream import ActivationStream
    from overtone.core.sites import Site
    from overtone.data.traces import traces_fingerprint
    from overtone.evaluate.faithfulness import selects_by_gradients

    target = options.target or read.facts.get("target", "")
    targets = [Site.parse(target)] if target else []
    rule, written = rule_of_rows(read, options), not (options.texts or options.traces)
    positions = AllTokens(part="response") if written and rule == "tokens" else positions_of(rule, subject.model)
    gradient = "mean" if selects_by_gradients(read.dictionary) else None
    stream = ActivationStream(
        subject.model, subject.traces, [*subject.sites, *targets], positions, gradient=gradient, quiet=options.quiet
    )
    ask = _ask(subject.sites, targets, gradient is not None)
    rows, documents = _some_rows(stream, ask, documents_of(""), options.n_rows, options.seed)
    groups = {trace.document: trace.group for trace in subject.traces}
    states = {"traces": traces_fingerprint(subject.traces)}
    return LookedAt(
        rows, [groups[d] for d in documents], subject.name, *_trained_on(read, (), states, options.documents)
    )


def stored_rows(read: Imported, options: Any) -> LookedAt:
    """Rows of a store, of several stores, or of arrays."""
    from overtone.activations.array import is_arrays
    from overtone.activations.store import ActivationStore
    from overtone.cli._sources import states_of, training_source
    from overtone.core.batch import ActivationBatch
    from overtone.core.sites import Site
    from overtone.evaluate.faithfulness import selects_by_gradients

    by_gradients = selects_by_gradients(read.dictionary)
    require(by_gradients or not options.gradients, "this dictionary selects by states alone: leave --gradients out.")
    own = {} if len(options.activations) == 1 and is_arrays(options.activations[0]) else read.facts
    names = options.site or tuple(filter(None, str(own.get("site", "")).split("+")))
    given = training_source(options.activations, names, options.target or own.get("target", ""), options.gradients)
    source = given.source
    arrays = isinstance(source, ActivationBatch)
    known = tuple(source.x) if arrays else source.sites
    require(bool(given.sites) or len(known) == 1, f"say at which site: --site, one of {', '.join(map(str, known))}.")
    slopes = source.g if arrays else getattr(source, "gradient", None)
    sites = tuple(Site.parse(site) for site in given.sites) or known
    ask = _ask(sites, [Site.parse(given.target)] if given.target else [], by_gradients and slopes is not None)
    held_out = None if options.documents else _held_out(read, source, sites)
    inside = held_out or documents_of(options.documents)
    rows, documents = _some_rows(source, ask, inside, options.n_rows, options.seed)
    states = states_of(source) if isinstance(source, ActivationStore) else {}
    why = (False, "its training held these documents out")
    why = why if held_out else _trained_on(read, given.fingerprints.values(), states, options.documents)
    return LookedAt(rows, documents, " ".join(options.activations), *why)


def rule_of_rows(read: Imported, options: Any) -> str:
    """What a row is: as asked for, as the dictionary was trained, or a token."""
    rule = (read.facts.get("states") or {}).get("positions", {})
    return options.rows or rule.get("anchor", "tokens")


def documents_of(text: str) -> Callable[[Any], Any]:
    """Whether documents lie in a range as it is written, FIRST:STOP with either left out; "" is all of them."""
    first, colon, stop = text.partition(":")
    good = bool(colon) and all(part == "" or part.isdigit() for part in (first, stop))
    require(good or not text, f"--documents {text}: write FIRST:STOP, such as 200:300, 200: or :200.")
    low, high = int(first or 0), int(stop or OPEN_END)
    return lambda document: (document >= low) & (document < high)


def _ask(sites: tuple[Site, ...], targets: list[Site], gradient: bool) -> Ask:
    from overtone.training.feed import Ask

    return Ask(tuple(sites), targets[0] if targets else None, gradient)


def _some_rows(source: Any, ask: Ask, inside: Callable[[Any], Any], most: int, seed: int) -> tuple[Rows, list[int]]:
    """Up to `most` rows of the documents that are asked for, these drawn by the seed, and the document of each."""
    import torch

    from overtone.core.batch import ActivationBatch
    from overtone.core.seeds import torch_generator
    from overtone.training.feed import Rows, rows_of

    pieces: Iterable[Any] = [source] if isinstance(source, ActivationBatch) else source.batches(PIECE, seed=seed)
    parts, documents, count = [], [], 0
    for batch in pieces:
        places = inside(batch.where.document).nonzero().view(-1)
        parts.append(rows_of(batch, ask).pick(places))
        documents.append(batch.where.document[places])
        count += len(places)
        if count >= most:
            break
    if not count:
        raise DataError("there are no rows of these documents. Name others (--documents), or leave it out.")
    order = torch.randperm(count, generator=torch_generator(seed, "rows"))[:most].sort().values
    x, y, g = (None if column[0] is None else torch.cat(column)[order] for column in zip(*parts, strict=True))
    assert x is not None
    return Rows(x, y, g), torch.cat(documents)[order].tolist()


# ------------------------------------------------------------------------------------------------------- seen or not
def _trained_on(
    read: Imported, prints: Iterable[str], states: Mapping[str, Any], named: str
) -> tuple[bool | None, str]:
    """Whether the dictionary was trained on states, by fingerprints of them and of the texts they are from; `named`:
    the documents that were asked for."""
    own = read.facts.get("states") or {}
    same = bool(set(prints) & set(read.sources.values()))
    if same or (own and own.get("traces") == states.get("traces")):
        if named:
            return None, "documents as they were named, of what it was trained on"
        return True, "it was trained on these states: those of other texts say more"
    if read.sources:
        return None, "other states than it was trained on; whether they share texts is not known"
    return None, "whether it was trained on them is not known"


def _held_out(read: Imported, source: Any, sites: tuple[Site, ...]) -> Callable[[Tensor], Tensor] | None:
    """Whether documents are those that `overtone compare` held out when it trained the dictionary on this source; None
    where it was not so, or not on this one."""
    import torch

    from overtone.core.batch import ActivationBatch
    from overtone.evaluate.lineup.lineup import by_document, held_out_rows
    from overtone.evaluate.lineup.shelf import fingerprint

    order = read.facts.get("order")
    if not order or len(sites) != 1:
        return None
    batch = source if isinstance(source, ActivationBatch) else source.all()
    g = None if batch.g is None else batch.g.get(sites[0])
    document = batch.where.document
    if fingerprint(by_document(batch.at(sites[0]), document, order["seed"], g=g)) != order["rows"]:
        return None
    names = document[held_out_rows(document, order["seed"])].unique()
    return lambda found: torch.isin(found, names)
