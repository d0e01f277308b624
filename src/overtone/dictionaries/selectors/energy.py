"""Energy: as many latents as it takes for the code to be as long as the state."""

import torch
from torch import Tensor

from overtone.core.settings import require
from overtone.dictionaries.codes import Support
from overtone.dictionaries.selectors.base import Selection


class Energy(Selection, kind="selection.energy"):
    """The k(x) best-scored latents of each row, k(x) = 1 + argmin_j | n_j - ||x - c|| |, where the scores are squared
    contributions, n_j is the root of the sum of the j largest and c the centre that is subtracted before encoding.

    At least one latent, at most those with a positive score, and never more than `most` (None: all). Where no row needs
    `most` latents, a smaller `most` gives the same answer in less time.
    Source: Lee et al. 2025, arXiv 2503.24277 (top-AFA).
    """

    has_budget = True

    def __init__(self, most: int | None = None) -> None:
        super().__init__()
        require(most is None or most >= 1, f"most={most} active latents per row: use at least 1.")
        self.most = most

    def arguments(self) -> dict[str, int | None]:
        """most."""
        return {"most": self.most}

    def nominate(self, scores: Tensor, *, company: bool, states: Tensor | None = None) -> Support:
        """The best of each row, until their joint length is nearest to that of the state."""
        assert states is not None, "this rank needs the states, less the centre"
        best, latents = scores.topk(min(self.most or scores.shape[1], scores.shape[1]), dim=1)
        lengths = best.cumsum(1).sqrt()
        nearest = (lengths - states.norm(dim=1, keepdim=True)).abs().argmin(1)
        counts = torch.minimum(nearest + 1, (best > 0).sum(1).clamp(min=1))
        chosen = torch.arange(best.shape[1], device=best.device) < counts[:, None]
        rows = torch.arange(len(scores), device=best.device)[:, None].expand_as(chosen)
        return Support(rows[chosen], latents[chosen], *scores.shape)
