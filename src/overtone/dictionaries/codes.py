"""Sparse codes: which latents are active in a row, and how strongly.

`SparseCodes` is what travels: a rectangle of slots, the same number in each row. `Support` is what selection and
training work with: the chosen places of many rows in one flat list, as many in a row as its selection wants.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from itertools import pairwise

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from overtone.core.errors import ShapeError


@dataclass(frozen=True, eq=False)
class SparseCodes:
    """Codes of some rows in their sparse form.

    values: (rows, active) floating, signed values allowed, in units of the input; indices: (rows, active) int64, each
    in [0, n_latents), no active latent twice in a row. A slot that is not used holds value 0 (at any index). Raises
    ShapeError if the two differ in shape or are not rectangles.
    """

    values: Tensor
    indices: Tensor
    n_latents: int

    def __post_init__(self) -> None:
        if self.values.ndim != 2 or self.values.shape != self.indices.shape:
            raise ShapeError(
                f"values {tuple(self.values.shape)} and indices {tuple(self.indices.shape)} must be equal."
            )

    def __len__(self) -> int:
        return self.values.shape[0]

    @classmethod
    def from_dense(cls, z: Float[Tensor, "rows latents"], k: int | None = None) -> "SparseCodes":
        """The sparse form of dense codes: exact, or, with `k`, the k largest magnitudes of each row only."""
        if k is None:
            k = int((z != 0).sum(1).max()) if len(z) else 0
        indices = z.abs().topk(min(k, z.shape[1]), dim=1).indices
        return cls(z.gather(1, indices), indices, z.shape[1])

    @classmethod
    def joined(cls, parts: Sequence["SparseCodes"]) -> "SparseCodes":
        """The rows of several codes of one dictionary, one after the other; narrower parts get unused slots.

        Raises ShapeError if there is no part or the parts have different numbers of latents.
        """
        if not parts or len({part.n_latents for part in parts}) > 1:
            raise ShapeError(f"joining needs codes of one dictionary, got latents {[p.n_latents for p in parts]}.")
        slots = max(part.values.shape[1] for part in parts)
        values = [torch.nn.functional.pad(p.values, (0, slots - p.values.shape[1])) for p in parts]
        indices = [torch.nn.functional.pad(p.indices, (0, slots - p.indices.shape[1])) for p in parts]
        return cls(torch.cat(values), torch.cat(indices), parts[0].n_latents)

    @property
    def is_active(self) -> Bool[Tensor, "rows active"]:
        """True in the slots that are used: signed values count whatever their sign."""
        return self.values != 0

    def dense(self) -> Float[Tensor, "rows latents"]:
        """(rows, n_latents) codes with zeros where a latent is not active. Differentiable."""
        zeros = self.values.new_zeros(len(self), self.n_latents)
        return zeros.scatter_add(1, self.indices, self.values)

    def counts(self) -> Int[Tensor, " rows"]:
        """Number of active latents of each row; its mean is L0."""
        return self.is_active.sum(1)

    def frequencies(self) -> Float[Tensor, " latents"]:
        """Share of the rows in which each latent is active, in [0, 1] (zeros if there are no rows)."""
        fired = torch.bincount(self.indices[self.is_active], minlength=self.n_latents)
        return fired / max(len(self), 1)

    def column(self, latent: int) -> Float[Tensor, " rows"]:
        """The values of one latent over the rows, 0 where it is not active."""
        return torch.where(self.indices == latent, self.values, 0).sum(1)

    def select(self, rows: Tensor) -> "SparseCodes":
        """The codes of some rows; `rows` is an index or boolean tensor."""
        return SparseCodes(self.values[rows], self.indices[rows], self.n_latents)

    def to(self, device: torch.device | str) -> "SparseCodes":
        """The same codes on another device."""
        return SparseCodes(self.values.to(device), self.indices.to(device), self.n_latents)


@dataclass(frozen=True, eq=False)
class Support:
    """Chosen places of a (rows, latents) matrix in row order, without values.

    rows, latents: (n,) int64, rows not decreasing; per_row: the number of places in a row where it is the same in all
    rows, else None. Everything derived (offsets, the order by latent) is computed once, when first asked for.
    """

    rows: Tensor
    latents: Tensor
    n_rows: int
    n_latents: int
    per_row: int | None = None

    @classmethod
    def from_indices(cls, indices: Int[Tensor, "rows active"], n_latents: int) -> "Support":
        """The support whose row r holds the latents indices[r]."""
        n_rows, per_row = indices.shape
        rows = (_known_rows if indices.device.type == "cpu" else _rows)(n_rows, per_row, indices.device)
        return cls(rows, indices.reshape(-1), n_rows, n_latents, per_row)

    @classmethod
    def from_mask(cls, mask: Bool[Tensor, "rows latents"]) -> "Support":
        """The support of the true places of a mask."""
        rows, latents = mask.nonzero(as_tuple=True)
        return cls(rows, latents, *mask.shape)

    @classmethod
    def joined(cls, parts: Sequence["Support"]) -> "Support":
        """The rows of several supports, one after the other."""
        if len(parts) == 1:
            return parts[0]
        starts = torch.tensor([part.n_rows for part in parts]).cumsum(0).tolist()
        rows = torch.cat([part.rows + start - part.n_rows for part, start in zip(parts, starts, strict=True)])
        widths = {part.per_row for part in parts}
        latents = torch.cat([part.latents for part in parts])
        return cls(rows, latents, starts[-1], parts[0].n_latents, widths.pop() if len(widths) == 1 else None)

    def blocks(self, size: int) -> Iterator[tuple["Support", slice, slice]]:
        """The support of so many rows at a time, with which rows and which places of the list these are."""
        if size >= self.n_rows:
            yield self, slice(0, self.n_rows), slice(0, len(self.latents))
            return
        ends = [*self.row_starts[::size].tolist(), len(self.latents)]
        for first, (start, end) in zip(range(0, self.n_rows, size), pairwise(ends), strict=True):
            places, n = slice(start, end), min(size, self.n_rows - first)
            part = Support(self.rows[places] - first, self.latents[places], n, self.n_latents, self.per_row)
            yield part, slice(first, first + n), places

    def kept(self, keep: Bool[Tensor, " places"]) -> "Support":
        """The places for which `keep` is true."""
        return self.taken(positions(keep))

    def taken(self, which: Int[Tensor, " some"]) -> "Support":
        """The places at some positions of the list, in order."""
        rows, latents = self.rows.index_select(0, which), self.latents.index_select(0, which)
        return Support(rows, latents, self.n_rows, self.n_latents)

    def take(self, matrix: Tensor) -> Tensor:
        """(n,) entries of a (rows, latents) matrix at these places. Differentiable."""
        if self.per_row is not None:
            return matrix.gather(1, self.latents.view(self.n_rows, self.per_row)).view(-1)
        return matrix.reshape(-1)[self.rows * self.n_latents + self.latents]

    def at(self, vector: Tensor) -> Tensor:
        """(n,) entries of a (latents,) vector at these places. Differentiable."""
        return vector.index_select(0, self.latents)

    @cached_property
    def row_starts(self) -> Tensor:
        """(rows,) position in the list where each row begins."""
        if self.per_row is not None:
            return torch.arange(self.n_rows, device=self.rows.device) * self.per_row
        return torch.searchsorted(self.rows, torch.arange(self.n_rows, device=self.rows.device))

    @cached_property
    def by_latent(self) -> tuple[Tensor, Tensor, Tensor]:
        """The transposed list, int32: (order of the places by latent, their rows in that order, start of each latent).
        Places of one latent keep the order of their rows."""
        if self.latents.device.type == "cpu":
            return self._transposed()
        latents, order = torch.sort(self.latents.int(), stable=True)
        starts = torch.searchsorted(latents, torch.arange(self.n_latents, dtype=torch.int32, device=latents.device))
        return order.int(), self.rows[order].int(), starts.int()

    def held(self) -> Tensor | None:
        """(latents,) int32: how many places each latent has, where that comes for nothing."""
        if "by_latent" not in self.__dict__:
            return None
        return self.by_latent[2].diff(append=torch.tensor([len(self.latents)], dtype=torch.int32))

    def transposed_by(self, transpose: Callable[["Support"], tuple[Tensor, Tensor, Tensor]]) -> None:
        """Have `by_latent` made by something that is faster here, if it is not known yet."""
        if "by_latent" not in self.__dict__:
            self.__dict__["by_latent"] = transpose(self)

    def _transposed(self) -> tuple[Tensor, Tensor, Tensor]:
        """`by_latent` by a counting sort, which on a CPU takes a tenth of the time of a general one."""
        from scipy.sparse import csr_array

        n = len(self.rows)
        places = torch.arange(n, dtype=torch.int32).numpy()
        ends = torch.cat([self.row_starts, self.row_starts.new_tensor([n])]).int().numpy()
        shape = (self.n_rows, self.n_latents)
        by_column = csr_array((places, self.latents.int().numpy(), ends), shape=shape).tocsc()
        order, rows, ends = (torch.from_numpy(part) for part in (by_column.data, by_column.indices, by_column.indptr))
        return order, rows, ends[:-1]

    def codes(self, values: Float[Tensor, " places"]) -> SparseCodes:
        """Values at these places as rectangular codes."""
        if self.per_row is not None:
            shape = (self.n_rows, self.per_row)
            return SparseCodes(values.view(shape), self.latents.view(shape), self.n_latents)
        slot = torch.arange(len(self.rows), device=self.rows.device) - self.row_starts[self.rows]
        shape = (self.n_rows, int(slot.max()) + 1 if len(slot) else 0)
        indices = self.latents.new_zeros(shape).index_put((self.rows, slot), self.latents)
        return SparseCodes(values.new_zeros(shape).index_put((self.rows, slot), values), indices, self.n_latents)


def _rows(n_rows: int, per_row: int, device: torch.device) -> Tensor:
    """The rows of a support with so many places in each."""
    with torch.inference_mode(False):  # training may use them next
        return torch.arange(n_rows, device=device).repeat_interleave(per_row)


_known_rows = lru_cache(maxsize=1)(_rows)  # steps follow each other with the same ones


def positions(mask: Bool[Tensor, " places"], number: int | None = None) -> Int[Tensor, " some"]:
    """Where a mask is true. number: how often, where that is known; else an accelerator is waited for, since it has to
    say so: ask once, and take what is there with `index_select`."""
    if mask.device.type == "cpu":  # torch's own way takes several times as long
        return torch.from_numpy(np.flatnonzero(mask.numpy()))
    if number is None:
        return mask.nonzero().view(-1)
    return _first(mask, number)


def _first(mask: Tensor, number: int) -> Tensor:
    """Where the first so many true ones of a mask are; a host need not wait for that."""
    return torch.sort(mask.byte(), descending=True, stable=True).indices[:number]


def counted(numbers: Int[Tensor, " places"], n: int, where: Bool[Tensor, " places"] | None = None) -> Tensor:
    """(n,) how often each of 0..n-1 is among some numbers, or among those of a mask."""
    if numbers.device.type == "cpu":
        return torch.bincount(numbers, where, minlength=n).long()
    once = torch.ones_like(numbers) if where is None else where.long()
    return once.new_zeros(n).index_add_(0, numbers, once)
