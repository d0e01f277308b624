"""ITDA: a dictionary of real states, taken greedily where matching pursuit on those so far fails. No gradients.

Source: Leask et al. 2025, "Inference-time decomposition of activations", arXiv 2505.17769 (ICML 2025).
First the `width` most frequent distinct states fill the space; then every state with 1 - cos(x, x_hat) > threshold is
added at unit length, x_hat by k steps of matching pursuit on |c| (solvers/pursuit). Each atom keeps the (document,
token) it came from as its label (classic/state_atoms).
Deviations: 1. the threshold is on the direction, 1 - cos; the authors' tau is per coordinate, tau = 2 (1 - cos) /
width, so that its meaning depends on the width; 2. threshold None is found by bisection such that the rows fill
n_latents; 3. candidates of one batch within cosine 0.999 count once (the paper mentions a filter, its code has none);
4. `centred` subtracts the mean first (the authors subtract nothing).
Promises: at most k active latents per row, of either sign; unit atoms, at most n_latents of them; rows independent.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from overtone.core.batch import Where
from overtone.core.settings import require
from overtone.dictionaries.classic.state_atoms import StateAtoms, choose_states, tightest
from overtone.dictionaries.preset import Preset, preset


@preset("itda", paper="Inference-time decomposition of activations, arXiv 2505.17769", capabilities=StateAtoms.CAN)
@dataclass(frozen=True)
class ITDA(Preset):
    """States as atoms, taken where pursuit on the atoms so far fails.

    k: steps of matching pursuit; threshold: 1 - cos from which a state becomes an atom (None: as large as fills
    n_latents); centred: subtract the mean state; batch_rows: states between two additions.
    """

    whole = True
    needs = frozenset({"where"})
    k: int = 32
    threshold: float | None = None
    centred: bool = False
    batch_rows: int = 256

    def __post_init__(self) -> None:
        super().__post_init__()
        require(
            self.threshold is None or 0 <= self.threshold < 2,
            f"threshold={self.threshold}: 1 - cos lies in [0, 2); 0 takes every state, 0.1 those explained badly.",
        )

    def fitted(self, rows: Float[Tensor, "rows width"], generator: torch.Generator) -> StateAtoms:
        """The dictionary of a matrix of states; labels are row numbers."""
        n = torch.arange(len(rows))
        return self.fitted_at(rows, Where(n, torch.zeros_like(n), torch.full_like(n, -1)), generator)

    def fitted_at(self, rows: Float[Tensor, "rows width"], where: Where, generator: torch.Generator) -> StateAtoms:
        """The dictionary of a matrix of states, each atom labelled with its row's document and token."""
        offset = rows.mean(0) if self.centred else torch.zeros(rows.shape[1])
        x = rows.float() - offset
        size = {"k": min(self.k, self.n_latents), "most": self.n_latents, "batch_rows": self.batch_rows}
        chosen = tightest(x, **size)[1] if self.threshold is None else choose_states(x, self.threshold, **size)
        labels = torch.stack([where.document, where.token], 1)[chosen.rows]
        return StateAtoms.of(x[chosen.rows], offset, labels, k=self.k, n_filled=chosen.n_filled)
