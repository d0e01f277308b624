"""What every source of activations can do, and the one path on which rows are ordered, shuffled and cut into batches.

A source only has to read the rows of some documents in a given order. Everything random happens here, as a function of
the seed and the sequence of rows alone, so that a live stream and a store give the same rows in the same order.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Protocol, runtime_checkable

import torch

from overtone.core.batch import ActivationBatch, Where
from overtone.core.errors import DataError, SettingError
from overtone.core.seeds import torch_generator
from overtone.core.sites import Site

Read = Callable[[Sequence[int]], Iterator[ActivationBatch]]
"""(documents by index) -> their rows in exactly that order, in pieces of any size."""

MOST_BYTES = 4 << 30
"""What `all()` may hold unless told otherwise: 4 GiB."""


@runtime_checkable
class ActivationSource(Protocol):
    """Rows of states at one or several sites, as often as needed.

    Laws: equal seeds give equal rows in equal order; a seed gives every row once per epoch; seed=None keeps the order
    of the documents; every batch but the last has exactly `rows` rows, epochs joined without a seam.
    """

    @property
    def sites(self) -> tuple[Site, ...]:
        """The sites every batch holds."""
        ...

    @property
    def widths(self) -> Mapping[Site, int]:
        """Width of the state at each site."""
        ...

    @property
    def n_rows(self) -> int:
        """Rows of one epoch."""
        ...

    @property
    def fingerprint(self) -> str:
        """Short hash of what decides the rows; a resumed training compares it."""
        ...

    def batches(self, rows: int, *, seed: int | None = None, epochs: int = 1) -> Iterator[ActivationBatch]:
        """Batches of `rows` rows each."""
        ...

    def all(self, *, most_bytes: int = MOST_BYTES) -> ActivationBatch:
        """All rows in document order, float32. Raises DataError if that takes more than `most_bytes`."""
        ...


def ordered_batches(
    read: Read, n_documents: int, rows: int, *, seed: int | None, epochs: int, buffer_rows: int
) -> Iterator[ActivationBatch]:
    """Batches of exactly `rows` rows (the last may be smaller) over all epochs.

    With a seed, each epoch permutes the documents and then its rows within a buffer of `buffer_rows`. Raises
    SettingError if a count is not positive.
    """
    if rows < 1 or epochs < 1 or buffer_rows < 2:
        raise SettingError(f"rows={rows}, epochs={epochs}, buffer_rows={buffer_rows}: use at least 1, 1 and 2.")
    return recut(_epochs(read, n_documents, seed, epochs, buffer_rows), rows)


def _epochs(read: Read, n_documents: int, seed: int | None, epochs: int, buffer_rows: int) -> Iterator[ActivationBatch]:
    for epoch in range(epochs):
        if seed is None:
            yield from read(range(n_documents))
            continue
        order = torch.randperm(n_documents, generator=torch_generator(seed, "documents", epoch)).tolist()
        yield from _mixed(read(order), buffer_rows, torch_generator(seed, "rows", epoch))


def _mixed(pieces: Iterator[ActivationBatch], buffer_rows: int, draw: torch.Generator) -> Iterator[ActivationBatch]:
    """Rows shuffled through a buffer: whenever it is full, permute it, give the first half, keep the second."""
    half, held = buffer_rows // 2, None
    for piece in recut(pieces, half):
        held = piece if held is None else joined([held, piece])
        if len(held) >= 2 * half:
            held = held.select(torch.randperm(len(held), generator=draw))
            yield sliced(held, 0, half)
            held = sliced(held, half, len(held))
    if held is not None and len(held):
        yield held.select(torch.randperm(len(held), generator=draw))


def recut(pieces: Iterable[ActivationBatch], rows: int) -> Iterator[ActivationBatch]:
    """The same rows in the same order, in batches of exactly `rows` rows; the last one may be smaller."""
    held: list[ActivationBatch] = []
    count = 0
    for piece in pieces:
        start = 0
        while len(piece) - start >= rows - count:
            stop = start + rows - count
            yield joined([*held, sliced(piece, start, stop)])
            held, count, start = [], 0, stop
        if start < len(piece):
            rest = sliced(piece, start, len(piece))
            held.append(rest.select(torch.arange(len(rest))))  # a copy: a view would keep the whole piece in memory
            count += len(rest)
            del rest
        del piece  # before the next one is computed
    if held:
        yield joined(held)


def joined(batches: Sequence[ActivationBatch]) -> ActivationBatch:
    """Several batches as one (states, their gradients and origins; sources give nothing else). A single one is returned
    as it is."""
    if len(batches) == 1:
        return batches[0]
    x = {site: torch.cat([b.x[site] for b in batches]) for site in batches[0].x}
    g = None if batches[0].g is None else {site: torch.cat([(b.g or {})[site] for b in batches]) for site in x}
    where = [(b.where.document, b.where.token, b.where.step) for b in batches]
    return ActivationBatch(x, Where(*(torch.cat(part) for part in zip(*where, strict=True))), g=g)


def sliced(batch: ActivationBatch, start: int, stop: int) -> ActivationBatch:
    """Rows start..stop of a batch, as views."""
    w = batch.where
    where = Where(w.document[start:stop], w.token[start:stop], w.step[start:stop])
    g = None if batch.g is None else {site: rows[start:stop] for site, rows in batch.g.items()}
    return ActivationBatch({site: x[start:stop] for site, x in batch.x.items()}, where, g=g)


def row_bytes(widths: Mapping[Site, int], bytes_per_number: int = 4, *, gradient: bool = False) -> int:
    """Bytes of one row over all sites, its origin included, and with `gradient` a float32 gradient for each state."""
    return sum(widths.values()) * (bytes_per_number + 4 * gradient) + 3 * 8


def gathered(
    pieces: Iterable[ActivationBatch],
    n_rows: int,
    widths: Mapping[Site, int],
    *,
    most_bytes: int = MOST_BYTES,
    dtype: torch.dtype = torch.float32,
    gradient: bool = False,
) -> ActivationBatch:
    """All rows of `pieces` in one batch on the device of the first; states in a dtype, gradients (which the pieces must
    hold if `gradient`) in float32.

    Each piece is written into place, so that nothing is held twice. Raises DataError if they take more than
    `most_bytes` or there are none.
    """
    needed = n_rows * row_bytes(widths, dtype.itemsize, gradient=gradient)
    if needed > most_bytes:
        raise DataError(
            f"{n_rows} rows take {in_bytes(needed)}, more than the {in_bytes(most_bytes)} allowed. "
            "Use batches(), fewer sites, or raise most_bytes."
        )
    out: ActivationBatch | None = None
    done = 0
    for piece in pieces:
        out = out or _empty(piece, n_rows, widths, dtype)
        _write(piece, sliced(out, done, done + len(piece)))
        done += len(piece)
        del piece  # before the next one is computed
    if out is None or done != n_rows:
        raise DataError(f"{done} rows came, {n_rows} were announced. Check that texts and positions select any.")
    return out


def _write(piece: ActivationBatch, place: ActivationBatch) -> None:
    for site, rows in piece.x.items():
        place.x[site].copy_(rows)
    for site, rows in (piece.g or {}).items():
        (place.g or {})[site].copy_(rows)
    for name in ("document", "token", "step"):
        getattr(place.where, name).copy_(getattr(piece.where, name))


def _empty(like: ActivationBatch, n_rows: int, widths: Mapping[Site, int], dtype: torch.dtype) -> ActivationBatch:
    def room(rows: Mapping[Site, torch.Tensor], dtype: torch.dtype) -> dict[Site, torch.Tensor]:
        return {site: torch.empty(n_rows, widths[site], dtype=dtype, device=r.device) for site, r in rows.items()}

    g = None if like.g is None else room(like.g, torch.float32)
    return ActivationBatch(room(like.x, dtype), Where(*(torch.empty(n_rows, dtype=torch.int64) for _ in range(3))), g=g)


def in_bytes(n: int) -> str:
    """A number of bytes as people read it: "312 KiB", "4.0 GiB"."""
    value, units = float(n), ["B", "KiB", "MiB", "GiB", "TiB"]
    while value >= 1000 and len(units) > 1:
        value, units = value / 1024, units[1:]
    return f"{value:.0f} {units[0]}" if value >= 10 or units[0] == "B" else f"{value:.1f} {units[0]}"
