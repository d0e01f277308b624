"""Several sources of the same tokens as one, such as two models read over the same texts: the views of a crosscoder."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from itertools import pairwise

import torch

from overtone.activations.source import MOST_BYTES, ActivationSource, gathered
from overtone.activations.store import ActivationStore
from overtone.activations.stream import ActivationStream
from overtone.core.batch import ActivationBatch
from overtone.core.errors import DataError, SettingError
from overtone.core.sites import Site

PIECE = 4096  # rows of a source in memory at a time while all are gathered


class AlignedSources:
    """`AlignedSources({"base": stream, "chat": other})`: an `ActivationSource` whose batches hold, for the same rows,
    the states of every source, at sites named after it: `base:residual.3`, `chat:residual.3`.

    sources: name -> live stream, store or array, all over the same tokens (the same traces, positions and buffer_rows,
    by which rows are shuffled). Rows lie on the device of the first one's. Raises SettingError for fewer than two,
    DataError where the tokens differ: other traces, or two tokenizers for which an id of these traces is not the same
    token; also, while reading, where rows of another origin meet.
    """

    def __init__(self, sources: Mapping[str, ActivationSource]) -> None:
        if len(sources) < 2:
            raise SettingError(f"{len(sources)} sources: give two or more, by name, or use the one as it is.")
        self.sources = dict(sources)
        self.widths: Mapping[Site, int] = {
            replace(site, model=name): width for name, s in self.sources.items() for site, width in s.widths.items()
        }
        for first, second in pairwise(self.sources):
            self._require_same_tokens(first, second)

    @property
    def sites(self) -> tuple[Site, ...]:
        """Every source's sites, under its name."""
        return tuple(self.widths)

    @property
    def n_rows(self) -> int:
        """Rows of one epoch."""
        return next(iter(self.sources.values())).n_rows

    @cached_property
    def fingerprint(self) -> str:
        """Hash of the names and the sources' fingerprints: 16 hex digits."""
        known = {name: source.fingerprint for name, source in self.sources.items()}
        return hashlib.sha256(json.dumps(known).encode()).hexdigest()[:16]

    def batches(self, rows: int, *, seed: int | None = None, epochs: int = 1) -> Iterator[ActivationBatch]:
        """Batches of exactly `rows` rows (the last may be smaller), in the order that each source gives them in.

        Raises DataError if these orders differ.
        """
        parts = (source.batches(rows, seed=seed, epochs=epochs) for source in self.sources.values())
        for batches in zip(*parts, strict=True):
            yield self._joined(batches)

    def all(self, *, most_bytes: int = MOST_BYTES) -> ActivationBatch:
        """All rows in document order, float32. Raises DataError if they take more than `most_bytes`."""
        slopes = all(getattr(source, "gradient", None) for source in self.sources.values())
        return gathered(self.batches(PIECE), self.n_rows, self.widths, most_bytes=most_bytes, gradient=slopes)

    def _joined(self, batches: Sequence[ActivationBatch]) -> ActivationBatch:
        first = batches[0].where
        for name, batch in zip(self.sources, batches, strict=True):
            pairs = ((getattr(first, column), getattr(batch.where, column)) for column in ("document", "token", "step"))
            if not all(torch.equal(a.cpu(), b.cpu()) for a, b in pairs):
                raise DataError(
                    f"rows of {name} do not come from where those of {next(iter(self.sources))} do. Read all over the "
                    "same traces, at the same positions and with the same buffer_rows."
                )
        device = next(iter(batches[0].x.values())).device
        named = list(zip(self.sources, batches, strict=True))
        x = {replace(site, model=name): rows.to(device) for name, b in named for site, rows in b.x.items()}
        g = {replace(site, model=name): rows.to(device) for name, b in named for site, rows in (b.g or {}).items()}
        return ActivationBatch(x, first, g=g if g.keys() == x.keys() else None)

    def _require_same_tokens(self, first: str, second: str) -> None:
        one, two = self.sources[first], self.sources[second]
        known = [_traces(one), _traces(two)]
        if all(known) and known[0] != known[1]:
            raise DataError(
                f"{first} and {second} were read over different tokens (traces {known[0]} and {known[1]}), so that "
                "their rows do not belong together. Read both over the same traces; tokenizers that cut the same texts "
                "into other tokens cannot be aligned."
            )
        if one.n_rows != two.n_rows:
            raise DataError(
                f"{first} has {one.n_rows} rows, {second} {two.n_rows}. Read both over the same texts, at the same "
                "positions."
            )
        if isinstance(one, ActivationStream) and isinstance(two, ActivationStream):
            _require_same_words(one, two, f"{first} and {second}")


def _traces(source: ActivationSource) -> str:
    """Fingerprint of the traces that a source reads, "" where nobody knows."""
    if isinstance(source, ActivationStore):
        return source.manifest.sources["traces"]
    return str(source.identity["traces"]) if isinstance(source, ActivationStream) else ""


def _require_same_words(one: ActivationStream, two: ActivationStream, names: str) -> None:
    """Raise DataError unless both models' tokenizers, where they have one, mean the same by the ids of the traces."""
    if one.model.tokenizer is None or two.model.tokenizer is None:
        return
    ids = sorted({i for trace in one.traces for i in trace.tokens})
    read = [stream.model.tokenizer.convert_ids_to_tokens(ids) for stream in (one, two)]
    if other := [(i, a, b) for i, a, b in zip(ids, *read, strict=True) if a != b]:
        i, a, b = other[0]
        raise DataError(
            f"the tokenizers of {names} differ: token {i} is {a!r} for one and {b!r} for the other. Models can be read "
            "beside each other where their tokenizers give the same tokens."
        )
