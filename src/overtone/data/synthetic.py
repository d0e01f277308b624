"""Planted sparse dictionaries: rows whose atoms and codes are known, to test what a dictionary learner recovers.

h = W a + eps: a few atoms (unit rows of W, bounded coherence) with coefficients in a range, plus Gaussian noise.
Source of the recovery claim: RISE, arXiv 2512.23988, section on theory.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from overtone.core.errors import DataError, SettingError
from overtone.core.seeds import torch_generator

_MOST_ROUNDS = 3000


@dataclass(frozen=True, eq=False)
class PlantedRows:
    """Rows drawn from a planted dictionary, with their true codes.

    x: (rows, width) float32. indices, values: (rows, active), distinct atoms of each row in ascending order and their
    coefficients.
    """

    x: Tensor
    indices: Tensor
    values: Tensor


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
        active: int,
        seed: int,
        low: float = 1.0,
        high: float = 2.0,
        noise: float = 0.0,
        signed: bool = False,
    ) -> PlantedRows:
        """Rows of `active` different atoms each, drawn evenly, with coefficients uniform in [low, high].

        noise: standard deviation of the Gaussian added to each coordinate. signed: give each coefficient a random sign.
        The same seed gives the same rows. Raises SettingError if a number is out of range.
        """
        n_atoms, width = self.atoms.shape
        if not 1 <= active <= n_atoms or rows < 1 or not 0 <= low <= high or noise < 0:
            raise SettingError(
                f"rows={rows}, active={active}, low={low}, high={high}, noise={noise}: use rows >= 1, "
                f"active in 1..{n_atoms}, 0 <= low <= high and noise >= 0."
            )
        draw = torch_generator(seed, "planted rows")
        chosen = torch.rand(rows, n_atoms, generator=draw).topk(active).indices.sort(1).values
        values = low + (high - low) * torch.rand(rows, active, generator=draw)
        if signed:
            values = values * (1 - 2 * torch.randint(2, values.shape, generator=draw))
        codes = torch.zeros(rows, n_atoms).scatter_(1, chosen, values)
        x = codes @ self.atoms + noise * torch.randn(rows, width, generator=draw)
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


def shuffled_features(x: Tensor, seed: int) -> Tensor:
    """The control: each coordinate of x (rows, width) permuted over the rows by itself.

    Keeps every coordinate's distribution and destroys what coordinates share; a learner must find no atoms in it.
    Raises DataError unless x is a matrix with at least two rows.
    """
    if x.ndim != 2 or x.shape[0] < 2:
        raise DataError(f"expected at least two rows (rows, width), got shape {tuple(x.shape)}.")
    order = torch.rand(x.shape, generator=torch_generator(seed, "shuffled features")).argsort(0)
    return x.gather(0, order.to(x.device))


def _unit(atoms: Tensor) -> Tensor:
    return atoms / atoms.norm(dim=1, keepdim=True)


def _off_diagonal(atoms: Tensor) -> Tensor:
    return (atoms @ atoms.T).fill_diagonal_(0)


def _coherence(atoms: Tensor) -> float:
    return float(_off_diagonal(atoms).abs().max())
