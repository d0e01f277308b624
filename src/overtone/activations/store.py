"""Activations on disk: computed once, read in the same order as a live stream would give them.

A store is a folder named by its content (model, traces, sites, positions, dtype). It is filled shard by shard in a
working folder beside it; a shard counts as written when its note is there, so a killed run goes on at the first missing
one and ends with the same bytes as a run that was never interrupted. Several processes may fill one store, each taking
the next shard that nobody has.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import accumulate
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from overtone.activations.claims import claimed
from overtone.activations.shards import Column, Shard, read_rows, write_shard
from overtone.activations.source import MOST_BYTES, gathered, ordered_batches
from overtone.activations.statistics import Statistics
from overtone.activations.stream import ActivationStream
from overtone.core.artifacts import MANIFEST, Manifest, file_hash, read_manifest, seal, write_json
from overtone.core.batch import ActivationBatch, Where
from overtone.core.errors import DataError, SettingError, StoreError, nearest
from overtone.core.progress import track
from overtone.core.sites import Site

if TYPE_CHECKING:
    from overtone.models.hooked import HookedModel

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
LAYOUT = 1
"""Version of what the files of a store mean; part of a store's identity."""
SHARD_BYTES = 256 << 20
"""Size of a shard unless told otherwise: 256 MiB."""
_ROWS, _STATISTICS = "rows.parquet", "statistics.json"
_COLUMNS = ("document", "token", "step")


def store_name(stream: ActivationStream, *, dtype: str = "float32", shard_bytes: int = SHARD_BYTES) -> str:
    """The name of the folder that a stream's rows are stored in: 16 hex digits, equal for equal content."""
    identity = {**stream.identity, "dtype": dtype, "shard_bytes": shard_bytes, "layout": LAYOUT}
    return hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()[:16]


def collect(
    folder: str | Path,
    stream: ActivationStream,
    *,
    dtype: str = "float32",
    shard_bytes: int = SHARD_BYTES,
    resume: bool = True,
    quiet: bool | None = None,
) -> ActivationStore:
    """Compute a stream's rows once and keep them in `folder`/`store_name`; a finished store is opened instead.

    Processes that collect the same store at the same time share the work, and all of them return it when it is whole.
    dtype: float32, bfloat16 or float16, of the numbers on disk. shard_bytes: size of a file, about (no document is
    cut). resume: go on where an earlier run was killed; False starts over. Memory stays within one shard and one
    window. Raises SettingError for an unknown dtype, DataError for states that are not finite (in that dtype),
    StoreError if the folder's name is taken by something else.
    """
    if dtype not in DTYPES or shard_bytes < 1:
        raise SettingError(
            f"dtype={dtype!r}, shard_bytes={shard_bytes}.{nearest(dtype, DTYPES)} Use {', '.join(DTYPES)}; at least 1."
        )
    target = Path(folder) / store_name(stream, dtype=dtype, shard_bytes=shard_bytes)
    working = target.with_name(f".{target.name}.collecting")
    if not resume:
        shutil.rmtree(working, ignore_errors=True)
    if target.exists() and not (target / MANIFEST).exists():
        raise StoreError(f"{target} exists and is no store; it was left alone. Remove it or choose another folder.")
    if not target.exists():
        _fill(_Job(working, target, stream, dtype, _plan(stream, dtype, shard_bytes)), quiet)
    shutil.rmtree(working, ignore_errors=True)
    return ActivationStore.open(target, model=stream.model, buffer_rows=stream.buffer_rows)


def _plan(stream: ActivationStream, dtype: str, shard_bytes: int) -> list[range]:
    """Consecutive ranges of documents whose rows reach `shard_bytes` each, the last range aside."""
    row = sum(stream.widths.values()) * (DTYPES[dtype].itemsize + (0 if stream.gradient is None else 4))
    plan, start, rows = [], 0, 0
    for document, n in enumerate(stream.rows_per_document):
        rows += n
        if rows * row >= shard_bytes:
            plan.append(range(start, document + 1))
            start, rows = document + 1, 0
    end = len(stream.rows_per_document)
    return [*plan, range(start, end)] if rows else [*plan[:-1], range(plan[-1].start, end)]


@dataclass(frozen=True, eq=False)
class _Job:
    """One store that is being filled, perhaps by several processes."""

    working: Path
    target: Path
    stream: ActivationStream
    dtype: str
    plan: Sequence[range]
    began: float = field(default_factory=time.time)

    def secure(self, number: int, *, wait: bool = False) -> bool:
        """Write a shard unless it is written, or another process is at it; that is waited for if `wait`. Returns
        whether it is written."""
        with claimed(self.working / "claims" / f"{number:05}", wait=wait) as mine:
            # A store that is finished has moved away from here.
            if mine and not self._is_written(number) and not self.target.exists():
                for stray in self.working.rglob(f".{number:05}.*.part"):  # left by a process killed while it wrote
                    stray.unlink()
                _write(self.working, number, self.plan[number], self.stream, self.dtype)
        return mine

    def _is_written(self, number: int) -> bool:
        note = _note(self.working, number)
        if note.exists() and note.stat().st_mtime > self.began:
            return True  # by another process just now: no need to read the shard again
        return _is_written(self.working, number)

    def end(self) -> None:
        """Make the store of what was written, unless another process has."""
        with claimed(self.working / "claims" / "end", wait=True):
            if self.target.exists():
                return
            notes = [json.loads(_note(self.working, number).read_text()) for number in range(len(self.plan))]
            _finish(self.working / "store", self.plan, notes, self.stream, self.dtype)
            (self.working / "store").rename(self.target)


def _fill(job: _Job, quiet: bool | None) -> None:
    label = f"storing {job.stream.told}: {job.stream.estimate()}"
    try:
        for name in ("notes", "claims", "store/shards"):
            (job.working / name).mkdir(parents=True, exist_ok=True)
        numbers = track(range(len(job.plan)), label, quiet=quiet)
        elsewhere = [number for number in numbers if not job.secure(number)]
        for number in elsewhere:  # others are at it; what one of them leaves undone is done here
            job.secure(number, wait=True)
        job.end()
    except FileNotFoundError:
        if not job.target.exists():  # else another process finished it, and has tidied up
            raise


def _shard(store: Path, number: int) -> Path:
    return store / "shards" / f"{number:05}.safetensors"


def _note(working: Path, number: int) -> Path:
    return working / "notes" / f"{number:05}.json"


def _is_written(working: Path, number: int) -> bool:
    """The note is written after the shard, so it vouches for it; a shard that changed since is written again."""
    note, shard = _note(working, number), _shard(working / "store", number)
    return note.exists() and shard.exists() and json.loads(note.read_text())["sha256"] == file_hash(shard)


def _write(working: Path, number: int, documents: range, stream: ActivationStream, dtype: str) -> None:
    n_rows = sum(stream.rows_per_document[d] for d in documents)
    pieces = map(_on_cpu, stream.read(documents))
    options = {"most_bytes": sys.maxsize, "dtype": DTYPES[dtype], "gradient": stream.gradient is not None}
    batch = gathered(pieces, n_rows, stream.widths, **options)
    statistics = {}
    for site, rows in batch.x.items():
        if not bool(torch.isfinite(rows).all()):  # the stream's rows are finite: this is the range of the dtype
            raise DataError(f"{site}: the states do not fit into {dtype}. Store them as bfloat16 or float32.")
        statistics[str(site)] = Statistics.of(rows).to_dict()
    path = _shard(working / "store", number)
    named = {str(site): rows for site, rows in batch.x.items()}
    write_shard(path, {**named, **{_of_gradient(site): rows for site, rows in (batch.g or {}).items()}})
    where = {name: getattr(batch.where, name).tolist() for name in _COLUMNS}
    write_json(_note(working, number), {"sha256": file_hash(path), "statistics": statistics, "where": where})


def _of_gradient(site: Site) -> str:
    """The name of a site's gradients in a shard."""
    return f"gradient {site}"


def _on_cpu(batch: ActivationBatch) -> ActivationBatch:
    g = None if batch.g is None else {site: rows.cpu() for site, rows in batch.g.items()}
    return replace(batch, x={site: rows.cpu() for site, rows in batch.x.items()}, g=g)


def _finish(
    store: Path, plan: Sequence[range], notes: Sequence[dict[str, Any]], stream: ActivationStream, dtype: str
) -> None:
    """Gather the notes into one row table and one set of statistics, and seal the folder."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    for stray in store.glob(".*.part"):
        stray.unlink()

    table = {name: pa.array([v for n in notes for v in n["where"][name]], pa.int64()) for name in _COLUMNS}
    pq.write_table(pa.table(table), store / _ROWS)
    names = [str(site) for site in stream.sites]
    parts = {name: [Statistics.from_dict(n["statistics"][name]) for n in notes] for name in names}
    write_json(store / _STATISTICS, {name: Statistics.merged(parts[name]).to_dict() for name in names})
    facts = {
        **stream.identity,
        "model_name": stream.model.name,
        "dtype": dtype,
        "layout": LAYOUT,
        "widths": {str(site): width for site, width in stream.widths.items()},
        "rows_per_document": list(stream.rows_per_document),
        "shards": [[r.start, r.stop] for r in plan],
    }
    sources = {name: str(stream.identity[name]) for name in ("model", "traces")}
    seal(store, Manifest("store", None, sources, facts))


@dataclass(frozen=True, eq=False)
class ActivationStore:
    """Rows on disk: an `ActivationSource` with random access. Made by `collect`, opened by `open`.

    folder: where it is; sites, widths: what it holds; where: origin of every row, in the order of the documents;
    buffer_rows: size of the shuffle buffer (equal to the stream's for equal order).
    """

    folder: Path
    manifest: Manifest
    sites: tuple[Site, ...]
    widths: Mapping[Site, int]
    where: Where
    shards: tuple[Shard, ...]
    buffer_rows: int = 65536

    @classmethod
    def open(
        cls, folder: str | Path, *, model: HookedModel | None = None, verify: bool = True, buffer_rows: int = 65536
    ) -> ActivationStore:
        """The store in a folder.

        folder: the store itself, or a folder that holds one store only. model: refuse the store if another model's
        states are in it. verify: compare every file with its hash (about a second per GiB). Raises StoreError if the
        folder is missing, unfinished, of another kind, truncated, damaged, or of another model.
        """
        folder = _only_store(Path(folder))
        manifest = read_manifest(folder, "store", check_files=verify)
        if manifest.facts.get("layout") != LAYOUT:
            raise StoreError(f"{folder} has layout {manifest.facts.get('layout')}, not {LAYOUT}. Collect it again.")
        if model is not None and model.fingerprint != manifest.sources["model"]:
            raise StoreError(
                f"{folder} holds states of {manifest.facts['model_name']} ({manifest.sources['model']}), not of "
                f"{model.name} ({model.fingerprint}). Open it with that model, or collect this one's."
            )
        widths = {Site.parse(name): width for name, width in manifest.facts["widths"].items()}
        shards = _open_shards(folder, manifest.facts, widths)
        where = _read_where(folder, sum(shard.rows for shard in shards))
        return cls(folder, manifest, tuple(widths), widths, where, shards, buffer_rows)

    @property
    def fingerprint(self) -> str:
        """Hash of the stored content: 16 hex digits."""
        return self.manifest.fingerprint

    @property
    def gradient(self) -> str | None:
        """How the loss was reduced whose gradients are stored beside the states, None where there are none."""
        return self.manifest.facts.get("gradient")

    @property
    def n_rows(self) -> int:
        """Rows of one epoch."""
        return len(self.where)

    def statistics(self, site: Site) -> Statistics:
        """Statistics of the stored numbers at a site. Raises DataError if the site was not collected."""
        if site not in self.widths:
            raise DataError(f"{self.folder} holds {', '.join(map(str, self.sites))}; {site} was not collected.")
        return Statistics.from_dict(json.loads((self.folder / _STATISTICS).read_text())[str(site)])

    def batches(self, rows: int, *, seed: int | None = None, epochs: int = 1) -> Iterator[ActivationBatch]:
        """Batches of exactly `rows` rows (the last may be smaller), float32, in the order the stream would give."""
        n, size = len(self.manifest.facts["rows_per_document"]), self.buffer_rows
        return ordered_batches(self.read, n, rows, seed=seed, epochs=epochs, buffer_rows=size)

    def all(self, *, most_bytes: int = MOST_BYTES) -> ActivationBatch:
        """All rows in document order, float32. Raises DataError if they take more than `most_bytes`."""
        whole = (s.documents for s in self.shards)
        pieces = (piece for documents in whole for piece in self.read(documents))
        gradient = self.gradient is not None
        return gathered(pieces, self.n_rows, self.widths, most_bytes=most_bytes, gradient=gradient)

    def read(self, documents: Sequence[int]) -> Iterator[ActivationBatch]:
        """Rows of some documents (by index in the collection), in exactly that order, float32."""
        counts = self.manifest.facts["rows_per_document"]
        starts = list(accumulate(counts, initial=0))
        for run in _runs(documents, self.shards):
            start, stop = starts[run.documents.start], starts[run.documents.stop]
            if start == stop:
                continue
            first = starts[run.shard.documents.start]
            ends = start - first, stop - first
            x = {site: read_rows(run.shard, str(site), *ends) for site in self.sites}
            slopes = {site: read_rows(run.shard, _of_gradient(site), *ends) for site in self.sites if self.gradient}
            yield ActivationBatch(x, self.where.select(torch.arange(start, stop)), g=slopes or None)


@dataclass(frozen=True)
class _Run:
    """Consecutive documents that lie side by side in one shard, so that one read fetches them."""

    shard: Shard
    documents: range


_MOST_RUN_DOCUMENTS = 256  # bounds the memory of one piece when documents come in order


def _runs(documents: Sequence[int], shards: Sequence[Shard]) -> Iterator[_Run]:
    shard_of = {d: shard for shard in shards for d in shard.documents}
    start = stop = -1
    for document in documents:
        joins = (
            document == stop and stop - start < _MOST_RUN_DOCUMENTS and shard_of.get(start) is shard_of.get(document)
        )
        if joins:
            stop += 1
            continue
        if start in shard_of:
            yield _Run(shard_of[start], range(start, stop))
        start, stop = document, document + 1
    if start in shard_of:
        yield _Run(shard_of[start], range(start, stop))


def _only_store(folder: Path) -> Path:
    """The folder, or the one finished store in it if it is a folder of stores."""
    if not folder.is_dir() or (folder / MANIFEST).exists():
        return folder
    inside = sorted(path.parent for path in folder.glob(f"[!.]*/{MANIFEST}"))
    if len(inside) > 1:
        names = ", ".join(path.name for path in inside)
        raise StoreError(f"{folder} holds {len(inside)} stores: {names}. Give the folder of one of them.")
    return inside[0] if inside else folder


def _open_shards(folder: Path, facts: Mapping[str, Any], widths: Mapping[Site, int]) -> tuple[Shard, ...]:
    counts = facts["rows_per_document"]
    columns = {str(site): Column(width, facts["dtype"]) for site, width in widths.items()}
    if facts.get("gradient"):
        columns |= {_of_gradient(site): Column(width, "float32") for site, width in widths.items()}
    plan = [range(*bounds) for bounds in facts["shards"]]
    return tuple(
        Shard.open(_shard(folder, number), documents, sum(counts[d] for d in documents), columns)
        for number, documents in enumerate(plan)
    )


def _read_where(folder: Path, n_rows: int) -> Where:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        table = pq.read_table(folder / _ROWS)
        parts = [torch.from_numpy(table[name].to_numpy().copy()) for name in _COLUMNS]
    except (OSError, KeyError, pa.ArrowException) as error:
        raise StoreError(f"{folder / _ROWS} cannot be read ({error}). Collect the store again.") from None
    if len(table) != n_rows:
        raise StoreError(
            f"{folder / _ROWS} lists {len(table)} rows, the shards hold {n_rows}. Collect the store again."
        )
    return Where(*parts)
