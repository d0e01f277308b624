"""SNMF: features that are sparse signed combinations of neurons, with non-negative codes.

Source: "Decomposing MLP activations into interpretable features via semi-nonnegative matrix factorization", arXiv
2506.10920. X ~ G Z (classic/semi_nmf): X (rows, width) hidden activations of an MLP (site mlp_neurons), G >= 0, and
each feature z_i keeps ceil(winners x width) neurons. What it writes to the residual stream is W_down z_i
(`written_directions`); `feature_tree` merges features into a hierarchy.
Deviations: 1. new states are encoded by non-negative least squares on the fitted features; the authors' code has codes
for the fitted rows only; 2. rows are scaled to mean square 1 before fitting, so that the small constants of the updates
mean the same for all data; 3. the gain that resets `patience` is relative; 4. defaults are 1000 rounds and 5 % of the
neurons, what the paper uses for its smallest model (1 % for larger ones).
Promises: codes are not negative, atoms have at most ceil(winners x width) entries, rows independent.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from overtone.core.errors import nearest
from overtone.core.settings import require
from overtone.dictionaries.classic.nonnegative import NonNegative
from overtone.dictionaries.classic.semi_nmf import Factorisation, semi_nmf, starts
from overtone.dictionaries.preset import Preset, preset

STARTS = ("random", "k_means", "svd")


@preset(
    "snmf",
    paper="Decomposing MLP activations into interpretable features via semi-nonnegative matrix factorization, "
    "arXiv 2506.10920",
    capabilities=NonNegative.CAN,
)
@dataclass(frozen=True)
class SNMF(Preset):
    """Sparse groups of neurons with non-negative codes, by alternating least squares.

    winners: share of the neurons that a feature keeps; start: "random", "k_means" or "svd"; iterations: most rounds;
    patience: rounds without gain before stopping; restarts: fits of which the one of least error is kept; rows: most
    rows it is fitted on, drawn at random (None: all; a round goes over every row).
    """

    whole = True
    winners: float = 0.05
    start: str = "random"
    iterations: int = 1000
    patience: int = 200
    restarts: int = 1
    rows: int | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        require(0 < self.winners <= 1, f"winners={self.winners}: the share of neurons kept lies in (0, 1].")
        require(self.start in STARTS, f"start={self.start!r}.{nearest(self.start, STARTS)} Use {', '.join(STARTS)}.")

    def fitted(self, rows: Float[Tensor, "rows width"], generator: torch.Generator) -> NonNegative:
        """The features of a matrix of states."""
        return NonNegative.of(self.factorised(rows, generator).features)

    def factorised(self, rows: Float[Tensor, "rows width"], generator: torch.Generator) -> Factorisation:
        """The factorisation itself, in units in which the rows have mean square 1."""
        if self.rows is not None and self.rows < len(rows):
            rows = rows[torch.randperm(len(rows), generator=generator)[: self.rows]]
        x = rows.double()
        x = x / x.square().mean().sqrt().clamp_min(1e-30)
        begin = starts(x, self.n_latents, generator)[self.start]
        fits = [
            semi_nmf(x, begin(), winners=self.winners, iterations=self.iterations, patience=self.patience)
            for _ in range(self.restarts)
        ]
        return min(fits, key=lambda fit: fit.loss)
