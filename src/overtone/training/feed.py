"""Feeds: endless, seeded, resumable batches over matrices of states or an activation source.

A source is anything with `batches(rows, seed=..., epochs=...)` that yields objects with `at(site)`; its batches for one
seed must always be the same. Rows of a matrix are shuffled anew in each epoch; batches run on across epochs, so that
all of them are equally large.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor

from overtone.core.batch import ActivationBatch, Where, require_finite
from overtone.core.errors import DataError, SettingError, ShapeError
from overtone.core.seeds import derive, torch_generator
from overtone.core.sites import Site


@dataclass(frozen=True)
class Ask:
    """What one job wants of each row.

    sites: where its states come from (none: the only site there is); several are concatenated, in this order. target:
    the site whose states are predicted; gradient: the loss gradient with respect to the states is wanted too.
    """

    sites: tuple[Site, ...] = ()
    target: Site | None = None
    gradient: bool = False

    def __str__(self) -> str:
        return "+".join(map(str, self.sites)) + (f" -> {self.target}" if self.target else "")


class Rows(NamedTuple):
    """What came for an `Ask`: (rows, width) states, and targets and gradients where they were wanted."""

    x: Tensor
    y: Tensor | None = None
    g: Tensor | None = None

    def pick(self, places: Tensor | slice) -> "Rows":
        """Some of the rows, float32."""
        return self.map(lambda part: part[places].float())

    def to(self, device: torch.device | str) -> "Rows":
        """The same rows on a device."""
        return self.map(lambda part: part.to(device))

    def map(self, change: Callable[[Tensor], Tensor]) -> "Rows":
        """Every part that is there, changed."""
        y, g = (None if part is None else change(part) for part in self[1:])
        return Rows(change(self.x), y, g)


Batch = dict[Ask, Rows]

FIRST_ROWS = 16_384
"""Rows on which scale and centre are fitted."""


class Feed(Protocol):
    """Batches without end. `position` after a batch is all that is needed to go on from there."""

    position: dict[str, int]

    @property
    def fingerprint(self) -> str:
        """A short hash of the data, "" if unknown."""
        ...

    def widths(self) -> dict[Ask, tuple[int, ...]]:
        """Width of the states of each site of an ask. Raises DataError if there are no rows."""
        ...

    def sample(self, ask: Ask, rows: int) -> Rows:
        """Up to `rows` of the first rows of the training, float32; positions are not moved."""
        ...

    def origins(self, rows: int) -> Where:
        """Where the rows of `sample` come from; each is a document of its own where nobody knows."""
        ...

    def batches(self) -> Iterator[Batch]:
        """Batches from `position` on, which moves along."""
        ...


class MatrixFeed:
    """A feed over matrices in memory with the same rows."""

    def __init__(
        self, matrices: Mapping[Ask, Rows], batch_rows: int, seed: int, where: Where | None = None, *,
        widths: Mapping[Ask, tuple[int, ...]] | None = None,
    ) -> None:  # fmt: skip
        self.matrices = {ask: _checked(rows, ask) for ask, rows in matrices.items()}
        lengths = {len(part) for rows in self.matrices.values() for part in rows if part is not None}
        if len(lengths) != 1:
            raise ShapeError(
                f"all matrices need the same rows, got {sorted(lengths)} of them. Train on each by itself."
            )
        self.n_rows, self.seed, self.where = lengths.pop(), seed, where
        self.batch_rows = min(batch_rows, self.n_rows)
        self.position = {"tokens": 0}
        self._widths = dict(widths or {ask: (rows.x.shape[1],) for ask, rows in self.matrices.items()})
        self._order: tuple[int, Tensor] = (-1, torch.empty(0))

    @property
    def fingerprint(self) -> str:
        """A cheap hash of shapes, contents and order."""
        sums = {
            str(ask): [(tuple(m.shape), float(m.sum(dtype=torch.float64)), _order_of(m)) for m in rows if m is not None]
            for ask, rows in self.matrices.items()
        }
        return f"{derive(0, sums):016x}"

    def widths(self) -> dict[Ask, tuple[int, ...]]:
        """Width of each site's states, or of a matrix whose sites are not known."""
        return self._widths

    def sample(self, ask: Ask, rows: int) -> Rows:
        """The first rows in the order of the first epoch."""
        return self.matrices[ask].pick(self._places(0, min(rows, self.n_rows)))

    def origins(self, rows: int) -> Where:
        """As it was given; else document i is row i of the matrix."""
        places = self._places(0, min(rows, self.n_rows))
        if self.where is not None:
            return self.where.select(places)
        return Where(places, torch.zeros_like(places), torch.full_like(places, -1))

    def batches(self) -> Iterator[Batch]:
        """Equal batches, the end of one epoch and the beginning of the next joined where they meet."""
        while True:
            start = self.position["tokens"]
            self.position = {"tokens": start + self.batch_rows}
            places = self._places(start, self.batch_rows)
            yield {ask: rows.pick(places) for ask, rows in self.matrices.items()}

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
    """A feed over an activation source, epoch by epoch. What is looked at before the training is kept for it, so that a
    live stream does not compute it again."""

    def __init__(self, source: Any, asks: Sequence[Ask], batch_rows: int, seed: int) -> None:
        self.source, self.batch_rows, self.seed, self.asks = source, batch_rows, seed, list(asks)
        self.only = _only(list(source.sites), asks)
        self.position = {"epoch": 0, "batch": 0}
        self._seen: list[Any] = []  # the first batches of the first epoch,
        self._rest: Iterator[Any] | None = None  # and what follows them

    @property
    def fingerprint(self) -> str:
        """The source's own fingerprint, "" if it has none."""
        return str(getattr(self.source, "fingerprint", ""))

    def widths(self) -> dict[Ask, tuple[int, ...]]:
        """Width of each site's states, seen in the first batch."""
        batch = next(self._first(1))
        self._rows(batch)  # complains of what is not there
        return {ask: _widths(batch.x, ask, self.only) for ask in self.asks}

    def sample(self, ask: Ask, rows: int) -> Rows:
        """The first rows of the first epoch."""
        parts = [self._rows(batch)[ask] for batch in self._first(rows)]
        x, y, g = (None if column[0] is None else torch.cat(column) for column in zip(*parts, strict=True))
        assert x is not None
        return Rows(x, y, g).pick(slice(rows))

    def origins(self, rows: int) -> Where:
        """As the source says."""
        parts = [batch.where for batch in self._first(rows)]
        names = ("document", "token", "step")
        where = Where(*(torch.cat([getattr(part, name) for part in parts]) for name in names))
        return where.select(torch.arange(min(rows, len(where))))

    def batches(self) -> Iterator[Batch]:
        """Batches of one epoch after the other; those before the position are skipped."""
        while True:
            epoch, skip = self.position["epoch"], self.position["batch"]
            for number, batch in enumerate(self._epoch(epoch)):
                if number >= skip:
                    self.position = {"epoch": epoch, "batch": number + 1}
                    yield self._rows(batch)
            self.position = {"epoch": epoch + 1, "batch": 0}

    def _rows(self, batch: Any) -> Batch:
        return {ask: _checked(rows_of(batch, ask, self.only), ask).pick(slice(None)) for ask in self.asks}

    def _first(self, rows: int) -> Iterator[Any]:
        """The first batches of the first epoch, until they hold so many rows or it ends; up to FIRST_ROWS are kept."""
        kept = rows <= FIRST_ROWS
        if kept and self._rest is None:
            self._rest = self._drawn(0)
        found, source = 0, self._again() if kept else self._drawn(0)
        for batch in source:
            found += len(rows_of(batch, self.asks[0], self.only).x)
            yield batch
            if found >= rows:
                return

    def _again(self) -> Iterator[Any]:
        yield from self._seen
        for batch in self._rest or ():
            self._seen.append(batch)
            yield batch

    def _epoch(self, epoch: int) -> Iterator[Any]:
        if epoch or self._rest is None:
            yield from self._drawn(epoch)
            return
        (seen, rest), self._seen, self._rest = (self._seen, self._rest), [], None
        while seen:
            yield seen.pop(0)
        yield from rest

    def _drawn(self, epoch: int) -> Iterator[Any]:
        empty = True
        for batch in self.source.batches(self.batch_rows, seed=derive(self.seed, "epoch", epoch), epochs=1):
            empty = False
            yield batch
        if empty:
            raise DataError("the source yields no rows. Check the texts and the positions that select from them.")


def rows_of(batch: ActivationBatch, ask: Ask, only: Site | None = None) -> Rows:
    """What a batch holds for an ask; `only`: the site that an ask without sites means.

    Raises DataError if it holds no states, targets or gradients of a site that was asked for.
    """
    sites = _sites(batch.x, ask, only)
    x = _beside_each_other([batch.at(site) for site in sites])
    y = g = None
    if ask.target is not None:
        y = (batch.y or {}).get(ask.target)
        y = batch.at(ask.target) if y is None else y
    if ask.gradient:
        if batch.g is None or any(site not in batch.g for site in sites):
            raise DataError(
                f"there are no gradients at {', '.join(map(str, sites))}: this preset selects by them. Collect states "
                "with their gradients, or give an ActivationBatch with g."
            )
        g = _beside_each_other([batch.g[site] for site in sites])
    return Rows(x, y, g)


def make_feed(source: Any, asks: Sequence[Ask], batch_rows: int, seed: int) -> MatrixFeed | SourceFeed:
    """The feed of a (rows, width) tensor, a mapping site -> tensor, an ActivationBatch or an activation source.

    Raises SettingError for anything else or a site that is not there, DataError for rows that are missing or not
    finite.
    """
    if isinstance(source, Tensor):
        return MatrixFeed({ask: _plain(source, ask) for ask in asks}, batch_rows, seed)
    if isinstance(source, Mapping):
        source = {Site.parse(site): matrix for site, matrix in source.items()}
        only = _only(list(source), asks)
        widths = {ask: _widths(source, ask, only) for ask in asks}
        matrices = {ask: _from_mapping(source, ask, only) for ask in asks}
        return MatrixFeed(matrices, batch_rows, seed, widths=widths)
    if isinstance(source, ActivationBatch):
        only = _only(list(source.x), asks)
        widths = {ask: _widths(source.x, ask, only) for ask in asks}
        matrices = {ask: rows_of(source, ask, only) for ask in asks}
        return MatrixFeed(matrices, batch_rows, seed, source.where, widths=widths)
    if hasattr(source, "batches") and hasattr(source, "sites"):
        return SourceFeed(source, asks, batch_rows, seed)
    raise SettingError(
        f"cannot train on a {type(source).__name__}: give a (rows, width) tensor, {{site: tensor}}, an ActivationBatch "
        "or a source."
    )


def _only(known: list[Site], asks: Sequence[Ask]) -> Site | None:
    """The site that an ask without sites means. Raises SettingError if that is not clear, or a site is not there."""
    names = ", ".join(map(str, known))
    wanted = [site for ask in asks for site in (*ask.sites, *((ask.target,) if ask.target else ()))]
    if missing := [str(site) for site in dict.fromkeys(wanted) if site not in known]:
        raise SettingError(f"no states of {', '.join(missing)}; there are {names}. Collect them first.")
    if len(known) == 1:
        return known[0]
    if any(not ask.sites for ask in asks):
        raise SettingError(
            f"there are states of {names}: say which to train on, e.g. --site {known[0]} (in Python "
            f"site={str(known[0])!r})."
        )
    return None


def _order_of(matrix: Tensor) -> float:
    """A number that changes when rows change places: up to 256 of them, spread evenly, each times its number."""
    some = matrix[torch.linspace(0, len(matrix) - 1, min(len(matrix), 256), dtype=torch.float64).long()]
    return float(some.double().sum(1).cpu() @ torch.arange(1, len(some) + 1, dtype=torch.float64))


def _plain(matrix: Tensor, ask: Ask) -> Rows:
    if ask.target is not None or ask.gradient:
        raise SettingError(
            "a tensor holds states only, and this job also wants "
            f"{'targets' if ask.target else 'gradients'}: give {{site: tensor}} or an ActivationBatch."
        )
    return Rows(matrix)


def _from_mapping(known: Mapping[Site, Tensor], ask: Ask, only: Site | None) -> Rows:
    if ask.gradient:
        raise SettingError("a mapping of matrices holds no gradients: give an ActivationBatch with g, or a source.")
    x = _beside_each_other([known[site] for site in _sites(known, ask, only)])
    return Rows(x, None if ask.target is None else known[ask.target])


def _sites(known: Mapping[Site, Tensor], ask: Ask, only: Site | None) -> tuple[Site, ...]:
    return ask.sites or ((only,) if only is not None else tuple(known))


def _widths(known: Mapping[Site, Tensor], ask: Ask, only: Site | None) -> tuple[int, ...]:
    return tuple(known[site].shape[-1] for site in _sites(known, ask, only))


def _beside_each_other(matrices: list[Tensor]) -> Tensor:
    return matrices[0] if len(matrices) == 1 else torch.cat(matrices, 1)


def _checked(rows: Rows, ask: Ask) -> Rows:
    name = f" of {ask}" if ask.sites else ""
    for part, what in zip(rows, ("states", "targets", "gradients"), strict=True):
        if part is None:
            continue
        if part.ndim != 2 or part.shape[1] == 0:
            raise ShapeError(f"{what}{name}: expected (rows, width), got {tuple(part.shape)}.")
        if not part.is_floating_point():
            raise ShapeError(f"{what}{name}: expected floating numbers, got {part.dtype}. Give them as floats.")
        if not len(part):
            raise DataError(f"{what}{name}: there are no rows to train on. Check the positions that select them.")
        require_finite(part, what + name)
    return rows
