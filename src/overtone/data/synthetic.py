"""Planted sparse dictionaries: rows whose atoms and codes are known, to test what a dictionary learner recovers.

h = W a + eps: a few atoms (unit rows of W, bounded coherence) with coefficients in a range, plus Gaussian noise.
Source of the recovery claim: RISE, arXiv 2512.23988, section on theory.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from overtone.core.errors import DataError, SettingError
from overtone.core.seeds import torch_generator

_MOST_ROUNDS = 3000


@dataclass(frozen=True, eq=False)
class PlantedRows:
    """Rows drawn from a planted dictionary, with their true codes.

    x: (rows, width) float32. indices, values: (rows, active), distinct atoms of each row (`sample`: in ascending order)
    and their coefficients; where rows have different numbers of atoms, coefficients of slots that are not used are 0.
    """

    x: Tensor
    indices: Tensor
    values: Tensor

    def codes(self, n_atoms: int) -> Tensor:
        """(rows, n_atoms) float32 true codes."""
        return torch.zeros(len(self.x), n_atoms).scatter_(1, self.indices, self.values)


@dataclass(frozen=True, eq=False)
class PlantedDictionary:
    """True atoms: (n_atoms, width) float32 unit rows, pairwise |cos| at most `coherence`."""

    atoms: Tensor

    @property
    def coherence(self) -> float:
        """Largest |cos| between two different atoms, in [0, 1]; 0 for a single atom."""
        return _coherence(self.atoms)

    def sample(
        self,
        rows: int,
        *,
        active: int | Sequence[int],
        seed: int,
        low: float = 1.0,
        high: float = 2.0,
        noise: float = 0.0,
        signed: bool = False,
    ) -> PlantedRows:
        """Rows of `active` different atoms each, drawn evenly, with coefficients uniform in [low, high].

        active: one number, or several, of which each row takes one at random (mixed sparsity, as in arXiv 2506.14002).
        noise: standard deviation of the Gaussian added to each coordinate. signed: give each coefficient a random sign.
        The same seed gives the same rows. Raises SettingError if a number is out of range.
        """
        n_atoms, width = self.atoms.shape
        counts = (active,) if isinstance(active, int) else tuple(active)
        fits = bool(counts) and 1 <= min(counts) <= max(counts) <= n_atoms
        if not fits or rows < 1 or not 0 <= low <= high or noise < 0:
            raise SettingError(
                f"rows={rows}, active={active}, low={low}, high={high}, noise={noise}: use rows >= 1, "
                f"active in 1..{n_atoms}, 0 <= low <= high and noise >= 0."
            )
        draw = torch_generator(seed, "planted rows")
        chosen = torch.rand(rows, n_atoms, generator=draw).topk(max(counts)).indices.sort(1).values
        values = low + (high - low) * torch.rand(rows, max(counts), generator=draw)
        if signed:
            values = values * (1 - 2 * torch.randint(2, values.shape, generator=draw))
        if len(counts) > 1:
            values = values * _some(values.shape, torch.tensor(counts), draw)
        codes = torch.zeros(rows, n_atoms).scatter_(1, chosen, values)
        x = codes @ self.atoms + noise * torch.randn(rows, width, generator=draw)
        return PlantedRows(x, chosen, values)

    def mixed(
        self, rows: int, *, shares: Mapping[int, float], exponent: float, seed: int, low: float = 1.0, high: float = 2.0
    ) -> PlantedRows:
        """Rows of unequal sparsity over atoms of unequal frequency.

        shares: number of active atoms -> share of the rows that have so many; exponent: atom i is drawn with weight
        (i + 1)^-exponent, without replacement within a row. Coefficients are uniform in [low, high]; unused slots of
        `indices` have value 0. Raises SettingError if a number is out of range.
        """
        n_atoms, most = self.atoms.shape[0], max(shares, default=0)
        if rows < 1 or not 1 <= min(shares, default=0) <= most <= n_atoms or not 0 <= low <= high:
            raise SettingError(
                f"rows={rows}, shares={dict(shares)}, low={low}, high={high}: use rows >= 1, active atoms in "
                f"1..{n_atoms} and 0 <= low <= high."
            )
        draw = torch_generator(seed, "mixed rows")
        weights = torch.arange(1, n_atoms + 1).float() ** -exponent
        gumbel = -torch.log(-torch.log(torch.rand(rows, n_atoms, generator=draw).clamp(1e-12, 1 - 1e-7)))
        chosen = (weights.log() + gumbel).topk(most).indices
        kinds = torch.multinomial(torch.tensor(list(shares.values())), rows, replacement=True, generator=draw)
        active = torch.tensor(list(shares))[kinds]
        values = low + (high - low) * torch.rand(rows, most, generator=draw)
        values = values * (torch.arange(most) < active[:, None])
        codes = torch.zeros(rows, n_atoms).scatter_(1, chosen, values)
        return PlantedRows(codes @ self.atoms, chosen, values)


@dataclass(frozen=True, eq=False)
class PlantedPairs:
    """Atoms that bind: where both atoms of a pair are active, the row gains a third direction.

    x = sum_i z_i d_i + sum over pairs (i, j) of z_i z_j b_ij. atoms: (n_atoms, width) unit rows; pairs: (pairs, 2)
    int64; vectors: (pairs, width), the b_ij. Source of the phenomenon: PolySAE, arXiv 2602.01322.
    """

    atoms: Tensor
    pairs: Tensor
    vectors: Tensor

    def sample(
        self, rows: int, *, active: int, together: float, seed: int, low: float = 0.5, high: float = 1.5
    ) -> PlantedRows:
        """Rows of `active` atoms; with probability `together` (share of the rows) two of them are a pair.

        Pairs also meet by chance. Raises SettingError if a number is out of range.
        """
        n_atoms = len(self.atoms)
        if not 2 <= active <= n_atoms or rows < 1 or not 0 <= low <= high or not 0 <= together <= 1:
            raise SettingError(
                f"rows={rows}, active={active}, together={together}, low={low}, high={high}: use rows >= 1, active in "
                f"2..{n_atoms}, together in 0..1 and 0 <= low <= high."
            )
        draw = torch_generator(seed, "planted pairs")
        rank = torch.rand(rows, n_atoms, generator=draw)
        if len(self.pairs):
            bound = self.pairs[torch.randint(len(self.pairs), (rows,), generator=draw)]
            meet = (torch.rand(rows, 1, generator=draw) < together).float()
            rank = rank.scatter_add(1, bound, meet.expand(rows, 2))
        chosen = rank.topk(active).indices.sort(1).values
        values = low + (high - low) * torch.rand(rows, active, generator=draw)
        made = PlantedRows(torch.zeros(rows, 0), chosen, values)
        z = made.codes(n_atoms)
        x = z @ self.atoms + (z[:, self.pairs[:, 0]] * z[:, self.pairs[:, 1]]) @ self.vectors
        return PlantedRows(x, chosen, values)


def plant(n_atoms: int, width: int, *, max_cosine: float, seed: int) -> PlantedDictionary:
    """A random dictionary of `n_atoms` unit atoms in `width` dimensions with every pairwise |cos| <= max_cosine.

    Starts from Gaussian rows and pushes apart the pairs that are too close. Raises SettingError if no such set exists
    (the Welch bound sqrt((n - d) / (d (n - 1))) is above max_cosine) or none was found.
    """
    if n_atoms < 1 or width < 1 or not 0 < max_cosine <= 1:
        raise SettingError(f"n_atoms={n_atoms}, width={width}, max_cosine={max_cosine}: use >= 1, >= 1 and (0, 1].")
    welch = math.sqrt(max(n_atoms - width, 0) / (width * max(n_atoms - 1, 1)))
    hint = f"Use max_cosine well above {welch:.3f} (the Welch bound), fewer atoms or more width."
    if welch > max_cosine:
        raise SettingError(f"{n_atoms} atoms in {width} dimensions cannot all have |cos| <= {max_cosine}. {hint}")
    atoms = _unit(torch.randn(n_atoms, width, generator=torch_generator(seed, "planted atoms"), dtype=torch.float64))
    target = 0.98 * max_cosine  # a margin, so that float32 and the last round stay below the bound
    for _ in range(_MOST_ROUNDS):
        if _coherence(atoms) <= max_cosine - 1e-6:
            return PlantedDictionary(atoms.float())
        cosines = _off_diagonal(atoms)
        excess = cosines - cosines.clamp(-target, target)
        atoms = _unit(atoms - 0.5 * excess @ atoms)
    raise SettingError(f"found no {n_atoms} atoms in {width} dimensions with |cos| <= {max_cosine}. {hint}")


def plant_pairs(
    n_atoms: int, width: int, n_pairs: int, *, strength: float, max_cosine: float, seed: int
) -> PlantedPairs:
    """A random dictionary in which `n_pairs` different pairs of atoms bind, with vectors of length `strength` in random
    directions. Raises SettingError if there are fewer pairs than that, or as `plant` does."""
    if not 0 <= n_pairs <= n_atoms * (n_atoms - 1) // 2 or strength < 0:
        raise SettingError(
            f"n_pairs={n_pairs}, strength={strength}: {n_atoms} atoms make {n_atoms * (n_atoms - 1) // 2} pairs, and a "
            "length is not negative."
        )
    draw = torch_generator(seed, "planted bindings")
    every = torch.combinations(torch.arange(n_atoms))
    pairs = every[torch.randperm(len(every), generator=draw)[:n_pairs]]
    vectors = strength * _unit(torch.randn(n_pairs, width, generator=draw))
    return PlantedPairs(plant(n_atoms, width, max_cosine=max_cosine, seed=seed).atoms, pairs, vectors)


def plant_neurons(n_atoms: int, n_neurons: int, n_each: int, *, seed: int) -> PlantedDictionary:
    """Atoms that are groups of neurons: unit rows with `n_each` positive entries at random places, the rest zero.

    Source of the phenomenon: semi-NMF of MLP activations, arXiv 2506.10920. Raises SettingError if n_each is out of
    range."""
    if not 1 <= n_each <= n_neurons or n_atoms < 1:
        raise SettingError(f"n_atoms={n_atoms}, n_each={n_each}: use at least 1, and 1..{n_neurons} neurons each.")
    draw = torch_generator(seed, "planted neurons")
    places = torch.rand(n_atoms, n_neurons, generator=draw).topk(n_each).indices
    sizes = 0.5 + torch.rand(n_atoms, n_each, generator=draw)
    return PlantedDictionary(_unit(torch.zeros(n_atoms, n_neurons).scatter_(1, places, sizes)))


def shuffled_features(x: Tensor, seed: int) -> Tensor:
    """The control: each coordinate of x (rows, width) permuted over the rows by itself.

    Keeps every coordinate's distribution and destroys what coordinates share; a learner must find no atoms in it.
    Raises DataError unless x is a matrix with at least two rows.
    """
    if x.ndim != 2 or x.shape[0] < 2:
        raise DataError(f"expected at least two rows (rows, width), got shape {tuple(x.shape)}.")
    order = torch.rand(x.shape, generator=torch_generator(seed, "shuffled features")).argsort(0)
    return x.gather(0, order.to(x.device))


def _some(shape: torch.Size, counts: Tensor, draw: torch.Generator) -> Tensor:
    """(rows, slots) mask with a random one of `counts` ones in each row, at random places."""
    wanted = counts[torch.randint(len(counts), (shape[0], 1), generator=draw)]
    return (torch.rand(shape, generator=draw).argsort(1).argsort(1) < wanted).float()


def _unit(atoms: Tensor) -> Tensor:
    return atoms / atoms.norm(dim=1, keepdim=True)


def _off_diagonal(atoms: Tensor) -> Tensor:
    return (atoms @ atoms.T).fill_diagonal_(0)


def _coherence(atoms: Tensor) -> float:
    return float(_off_diagonal(atoms).abs().max())
