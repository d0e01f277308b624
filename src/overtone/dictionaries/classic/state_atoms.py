"""Dictionaries whose atoms are states: chosen, not learned, so that each atom comes from a known place in the data.

Source: ITDA, arXiv 2505.17769.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import cosine_similarity, normalize

from overtone.core.batch import Where
from overtone.core.errors import DataError
from overtone.dictionaries.codes import SparseCodes
from overtone.dictionaries.dictionary import Capabilities, Dictionary
from overtone.dictionaries.solvers.pursuit import matching

BLOCK = 2**21  # correlations in memory at a time
SAME = 0.999  # candidates of one batch that are this close count once


class StateAtoms(Dictionary, kind="dictionary.state_atoms"):
    """x ~ z D + offset, z by matching pursuit (signed, `k` steps) on unit atoms D, each of which is a state less the
    offset. labels: (latents, 2) int64, document and token of that state; the first `n_filled` atoms were taken to fill
    the space, not for their error."""

    CAN: ClassVar = Capabilities(signed_codes=True, has_preactivations=False, has_encoder_matrix=False, foldable=False)
    weight: Tensor
    offset: Tensor
    labels: Tensor
    filled: Tensor

    def __init__(self, width: int, n_latents: int, k: int) -> None:
        super().__init__(width, n_latents)
        self.k = k
        self.register_buffer("weight", torch.zeros(n_latents, width))
        self.register_buffer("offset", torch.zeros(width))
        self.register_buffer("labels", torch.zeros(n_latents, 2, dtype=torch.int64))
        self.register_buffer("filled", torch.zeros((), dtype=torch.int64))

    @classmethod
    def of(
        cls, atoms: Float[Tensor, "latents width"], offset: Float[Tensor, " width"], labels: Tensor, *, k: int,
        n_filled: int = 0,
    ) -> "StateAtoms":  # fmt: skip
        """The dictionary of given states less the offset, with the place each came from."""
        made = cls(atoms.shape[1], atoms.shape[0], min(k, atoms.shape[0]))
        made.weight.copy_(normalize(atoms, dim=1))
        made.offset.copy_(offset)
        made.labels.copy_(labels)
        made.filled.fill_(n_filled)
        return made.eval()

    def arguments(self) -> dict[str, Any]:
        """width, n_latents and k."""
        return {"width": self.width, "n_latents": self.n_latents, "k": self.k}

    @property
    def capabilities(self) -> Capabilities:
        """Signed codes by pursuit: no pre-activations and no encoder."""
        return self.CAN

    @torch.no_grad()
    def encode(self, x: Float[Tensor, "rows width"]) -> SparseCodes:
        """At most k active latents per row."""
        x = self.checked(x)
        centred = (x - self.offset).to(torch.promote_types(x.dtype, torch.float32))
        parts = centred.split(max(1, BLOCK // self.n_latents))
        return SparseCodes.joined([matching(rows, self.weight.to(rows.dtype), self.k, signed=True) for rows in parts])

    def decode(self, codes: SparseCodes, x: Tensor | None = None) -> Float[Tensor, "rows width"]:
        """The sum of the active atoms and the offset."""
        codes = self.checked_codes(codes)
        return codes.dense().to(self.weight.dtype) @ self.weight + self.offset

    def atoms(self) -> Float[Tensor, "latents width"]:
        """The chosen states as unit vectors."""
        return self.weight

    def places(self, *, with_fill: bool = False) -> frozenset[tuple[int, int]]:
        """(document, token) of each atom; by default without those that only filled the space, which any two
        dictionaries of the same stream share."""
        chosen = self.labels if with_fill else self.labels[int(self.filled) :]
        return frozenset((int(document), int(token)) for document, token in chosen)

    def carried_to(self, rows: Float[Tensor, "rows width"], where: Where) -> "StateAtoms":
        """The dictionary of another model (or layer) whose atoms are its states at the same places, in the same order;
        the offset becomes the mean row if this one has any. Raises DataError if a place is not among the rows."""
        at = {(int(d), int(t)): i for i, (d, t) in enumerate(zip(where.document, where.token, strict=True))}
        try:
            picked = torch.tensor([at[int(d), int(t)] for d, t in self.labels])
        except KeyError as place:
            raise DataError(
                f"no row comes from (document, token) {place}. Collect the same documents, cut in the same tokens."
            ) from None
        offset = rows.mean(0) if bool(self.offset.any()) else torch.zeros(rows.shape[1])
        return StateAtoms.of(rows[picked] - offset, offset, self.labels, k=self.k, n_filled=int(self.filled))


@dataclass(frozen=True, eq=False)
class Chosen:
    """Indices of the rows that became atoms, in that order, of which the first `n_filled` filled the space."""

    rows: Tensor
    n_filled: int


def choose_states(x: Float[Tensor, "rows width"], threshold: float, *, k: int, most: int, batch_rows: int) -> Chosen:
    """Go through the rows once, in order, and take those that the atoms so far reconstruct badly.

    At first the width (at most `most`) distinct rows that are most frequent fill the space. Then every row with
    1 - cos(x, x_hat) > threshold, x_hat by k steps of matching pursuit, becomes an atom at the end of its batch, unless
    it lies within cosine 0.999 of another newcomer. Stops at `most` atoms. Rows of zeros are never taken.
    """
    units = normalize(x, dim=1)
    chosen = _fill(x, min(x.shape[1], most))
    n_filled, taken = len(chosen), [chosen]
    atoms = units[chosen]
    for batch in torch.arange(len(x)).split(batch_rows):
        if len(atoms) >= most:
            break
        new = batch[direction_errors(units[batch], atoms, k) > threshold]
        new = _distinct(units, new)[: most - len(atoms)]
        taken.append(new)
        atoms = torch.cat([atoms, units[new]])
    return Chosen(torch.cat(taken), n_filled)


def direction_errors(units: Tensor, atoms: Tensor, k: int) -> Tensor:
    """(rows,) 1 - cos(x, x_hat), x_hat by k steps of matching pursuit; 0 for rows of zeros."""
    parts = []
    for rows in units.split(max(1, BLOCK // len(atoms))):
        x_hat = matching(rows, atoms, k, signed=True).dense() @ atoms
        parts.append(torch.where(rows.any(1), 1 - cosine_similarity(rows, x_hat), 0.0))
    return torch.cat(parts)


def tightest(
    x: Float[Tensor, "rows width"], *, k: int, most: int, batch_rows: int, rounds: int = 8
) -> tuple[float, Chosen]:
    """The largest threshold at which the rows fill `most` atoms, by bisection in its logarithm, and what it chooses;
    the smallest one tried if none fills them."""
    trials = _bisected(x, k=k, most=most, batch_rows=batch_rows, rounds=rounds)
    found = list(trials)
    full = [(threshold, chosen) for threshold, chosen in found if len(chosen.rows) == most]
    return max(full, key=lambda f: f[0]) if full else min(found, key=lambda f: f[0])


def _bisected(x: Tensor, *, k: int, most: int, batch_rows: int, rounds: int) -> Iterator[tuple[float, Chosen]]:
    low, high = 1e-6, 1.0
    for _ in range(rounds):
        middle = (low * high) ** 0.5
        chosen = choose_states(x, middle, k=k, most=most, batch_rows=batch_rows)
        yield middle, chosen
        low, high = (middle, high) if len(chosen.rows) == most else (low, middle)


def _fill(x: Tensor, n: int) -> Tensor:
    """Indices of the n most frequent distinct rows, equally frequent ones by where they first appear."""
    alive = x.any(1).nonzero().view(-1)
    if not len(alive):
        raise DataError("all rows are zero, so none can be an atom. Check the states.")
    _, group, counts = torch.unique(x[alive], dim=0, return_inverse=True, return_counts=True)
    first = torch.full_like(counts, len(alive)).scatter_reduce_(0, group, torch.arange(len(alive)), "amin")
    order = first.argsort(stable=True)
    order = order[counts[order].argsort(descending=True, stable=True)]
    return alive[first[order[:n]]]


def _distinct(units: Tensor, rows: Tensor) -> Tensor:
    """The rows that no earlier one of them lies close to."""
    close = (units[rows] @ units[rows].T > SAME).triu(1)
    keep = torch.ones(len(rows), dtype=torch.bool)
    for i in range(len(rows)):
        if keep[i]:
            keep &= ~close[i]
    return rows[keep]
