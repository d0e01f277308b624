"""Feeds: endless, seeded, resumable batches over a matrix of states or an activation source.

A source is anything with `batches(rows, seed=..., epochs=...)` that yields objects with `at(site)`; its batches for one
seed must always be the same. Rows of a matrix are shuffled anew in each epoch; batches run on across epochs, so that
all of them are equally large.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Protocol

import torch
from torch import Tensor

from overtone.core.batch import require_finite
from overtone.core.errors import DataError, SettingError, ShapeError
from overtone.core.seeds import derive, torch_generator
from overtone.core.sites import Site

Key = Site | None
"""Which states a job trains on: a site, or None for the only ones there are."""
Batch = dict[Key, Tensor]


class Feed(Protocol):
    """Batches without end. `position` after a batch is all that is needed to go on from there."""

    position: dict[str, int]

    def widths(self) -> dict[Key, int]:
        """Width of the states of each key. Raises DataError if there are no rows."""
        ...

    def sample(self, key: Key, rows: int) -> Tensor:
        """Up to `rows` of the first rows of the training, float32; positions are not moved."""
        ...

    def batches(self) -> Iterator[Batch]:
        """Batches from `position` on, which moves along."""
        ...


class MatrixFeed:
    """A feed over matrices in memory with the same rows: key -> (rows, width)."""

    def __init__(self, matrices: Mapping[Key, Tensor], batch_rows: int, seed: int) -> None:
        self.matrices = {key: _matrix(m, key) for key, m in matrices.items()}
        lengths = {len(m) for m in self.matrices.values()}
        if len(lengths) != 1:
            raise ShapeError(
                f"all matrices need the same rows, got {sorted(lengths)} of them. Train on each by itself."
            )
        self.n_rows, self.seed = lengths.pop(), seed
        self.batch_rows = min(batch_rows, self.n_rows)
        self.position = {"tokens": 0}
        self._order: tuple[int, Tensor] = (-1, torch.empty(0))

    @property
    def fingerprint(self) -> str:
        """A cheap hash of shapes and contents."""
        sums = {str(k): (tuple(m.shape), float(m.sum(dtype=torch.float64))) for k, m in self.matrices.items()}
        return f"{derive(0, sums):016x}"

    def widths(self) -> dict[Key, int]:
        """Width of each matrix."""
        return {key: m.shape[1] for key, m in self.matrices.items()}

    def sample(self, key: Key, rows: int) -> Tensor:
        """The first rows in the order of the first epoch."""
        return self.matrices[key][self._places(0, min(rows, self.n_rows))].float()

    def batches(self) -> Iterator[Batch]:
        """Equal batches, the end of one epoch and the beginning of the next joined where they meet."""
        while True:
            start = self.position["tokens"]
            self.position = {"tokens": start + self.batch_rows}
            places = self._places(start, self.batch_rows)
            yield {key: m.index_select(0, places).float() for key, m in self.matrices.items()}

    def _places(self, start: int, count: int) -> Tensor:
        epoch, offset = divmod(start, self.n_rows)
        here = self._epoch(epoch)[offset : offset + count]
        if len(here) == count:
            return here
        return torch.cat([here, self._places(start + len(here), count - len(here))])

    def _epoch(self, epoch: int) -> Tensor:
        if self._order[0] != epoch:
            self._order = (epoch, torch.randperm(self.n_rows, generator=torch_generator(self.seed, "epoch", epoch)))
        return self._order[1]


class SourceFeed:
    """A feed over an activation source, epoch by epoch."""

    def __init__(self, source: Any, keys: Sequence[Key], batch_rows: int, seed: int) -> None:
        self.source, self.batch_rows, self.seed = source, batch_rows, seed
        sites = list(source.sites)
        if None in keys and len(sites) != 1:
            raise SettingError(
                f"the source holds {', '.join(map(str, sites))}: say which site to train on, e.g. site={sites[0]}."
            )
        self.sites = {key: sites[0] if key is None else Site.parse(key) for key in keys}
        self.position = {"epoch": 0, "batch": 0}

    @property
    def fingerprint(self) -> str:
        """The source's own fingerprint, "" if it has none."""
        return str(getattr(self.source, "fingerprint", ""))

    def widths(self) -> dict[Key, int]:
        """Width of each key's states, seen in the first batch."""
        return {key: rows.shape[1] for key, rows in next(self._epoch(0)).items()}

    def sample(self, key: Key, rows: int) -> Tensor:
        """The first rows of the first epoch."""
        parts, found = [], 0
        for batch in self._epoch(0):
            parts.append(batch[key])
            found += len(batch[key])
            if found >= rows:
                break
        return torch.cat(parts)[:rows]

    def batches(self) -> Iterator[Batch]:
        """Batches of one epoch after the other; those before the position are skipped."""
        while True:
            epoch, skip = self.position["epoch"], self.position["batch"]
            for number, batch in enumerate(self._epoch(epoch)):
                if number >= skip:
                    self.position = {"epoch": epoch, "batch": number + 1}
                    yield batch
            self.position = {"epoch": epoch + 1, "batch": 0}

    def _epoch(self, epoch: int) -> Iterator[Batch]:
        empty = True
        for batch in self.source.batches(self.batch_rows, seed=derive(self.seed, "epoch", epoch), epochs=1):
            empty = False
            yield {key: _matrix(batch.at(site), site).float() for key, site in self.sites.items()}
        if empty:
            raise DataError("the source yields no rows. Check the texts and the positions that select from them.")


def make_feed(source: Any, keys: Sequence[Key], batch_rows: int, seed: int) -> MatrixFeed | SourceFeed:
    """The feed of a (rows, width) tensor, of a mapping site -> tensor, or of an activation source.

    Raises SettingError for anything else or a site that is not there, DataError for rows that are missing or not
    finite.
    """
    if isinstance(source, Tensor):
        return MatrixFeed(dict.fromkeys(keys, source), batch_rows, seed)
    if isinstance(source, Mapping):
        known = {Site.parse(site): matrix for site, matrix in source.items()}
        only = next(iter(known)) if len(known) == 1 else None
        if None in keys and only is None:
            raise SettingError(f"there are states of {', '.join(map(str, known))}: say which site to train on.")
        wanted = {key: only if key is None else key for key in keys}
        if missing := [str(site) for site in wanted.values() if site not in known]:
            raise SettingError(
                f"no states of {', '.join(missing)}; there are {', '.join(map(str, known))}. Collect them first."
            )
        return MatrixFeed({key: known[site] for key, site in wanted.items() if site is not None}, batch_rows, seed)
    if hasattr(source, "batches") and hasattr(source, "sites"):
        return SourceFeed(source, keys, batch_rows, seed)
    raise SettingError(
        f"cannot train on a {type(source).__name__}: give a (rows, width) tensor, {{site: tensor}} or a source."
    )


def _matrix(rows: Tensor, key: Key) -> Tensor:
    what = f"states of {key}" if key else "states"
    if rows.ndim != 2 or rows.shape[1] == 0:
        raise ShapeError(f"{what}: expected (rows, width), got {tuple(rows.shape)}.")
    if not len(rows):
        raise DataError(f"{what}: there are no rows to train on. Check the positions that select them.")
    return require_finite(rows, what)
