"""Energy: as many latents as it takes for the code to be as long as the state."""

from collections.abc import Callable

import torch
from torch import Tensor

from overtone.core.settings import require
from overtone.dictionaries.codes import Support
from overtone.dictionaries.selectors.base import Rule, Selection

SAMPLE = 16  # rows that say about how many latents the others need
SPARE = 1.3  # times as many as the neediest of them are looked at first


class Energy(Selection, kind="selection.energy"):
    """The k(x) best-scored latents of each row, k(x) = 1 + argmin_j | n_j - ||x - c|| |, where the scores are squared
    contributions, n_j is the root of the sum of the j largest and c the centre that is subtracted before encoding.

    At least one latent, at most those with a positive score, and never more than `most` (None: all). Where no row needs
    `most` latents, a smaller `most` gives the same answer in less time.
    Source: Lee et al. 2025, arXiv 2503.24277 (top-AFA).
    """

    has_budget = True
    narrows = True

    def __init__(self, most: int | None = None) -> None:
        super().__init__()
        require(most is None or most >= 1, f"most={most} active latents per row: use at least 1.")
        self.most = most
        self._asked = 0  # latents per row that a rule that was too narrow asked for, times 2
        self._latest = 0

    def arguments(self) -> dict[str, int | None]:
        """most."""
        return {"most": self.most}

    def nominate(self, scores: Tensor, *, company: bool, states: Tensor | None = None) -> Support:
        """The best of each row, until their joint length is nearest to that of the state."""
        assert states is not None, "this rank needs the states, less the centre"
        best, latents = scores.topk(self._cap(scores.shape[1]), dim=1)
        chosen = torch.arange(best.shape[1], device=best.device) < _counts(best, states)[:, None]
        rows = torch.arange(len(scores), device=best.device)[:, None].expand_as(chosen)
        return Support(rows[chosen], latents[chosen], *scores.shape)

    def rule(self, sample: Callable[[], Tensor], states: Tensor) -> Rule | None:
        """The best of each row, so many that they will mostly do; None where that is most of the latents."""
        scores = sample()[:SAMPLE]
        cap, n_latents = self._cap(scores.shape[1]), scores.shape[1]
        if not self._asked:
            needed = int(_counts(scores.topk(cap, dim=1).values, states[:SAMPLE]).max())
            self._asked = int(SPARE * needed) + 8
        self._latest, self._asked = min(self._asked, cap), 0
        return Rule(k=self._latest) if 2 * self._latest <= n_latents else None

    def narrow(self, nominees: Support, scores: Tensor, states: Tensor) -> Tensor | None:
        """The best of each row, where they are enough to tell: the next ones would only lead further away."""
        by_row = scores.view(nominees.n_rows, -1)
        best, order = by_row.sort(dim=1, descending=True, stable=True)
        reached = best.sum(1).sqrt() >= states.norm(dim=1) * (1 + 1e-5)
        if by_row.shape[1] < self._cap(nominees.n_latents) and not bool((reached | (best[:, -1] <= 0)).all()):
            return None
        chosen = torch.arange(by_row.shape[1], device=best.device) < _counts(best, states)[:, None]
        return torch.zeros_like(chosen).scatter_(1, order, chosen).view(-1)

    def widen(self) -> None:
        """Look at twice as many."""
        self._asked = 2 * self._latest

    def _cap(self, n_latents: int) -> int:
        return min(self.most or n_latents, n_latents)


def _counts(best: Tensor, states: Tensor) -> Tensor:
    """(rows,) how many of the best scores, in falling order, are kept."""
    lengths = best.cumsum(1).sqrt()
    nearest = (lengths - states.norm(dim=1, keepdim=True)).abs().argmin(1)
    return torch.minimum(nearest + 1, (best > 0).sum(1).clamp(min=1))
