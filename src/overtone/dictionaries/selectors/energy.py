"""Energy: as many latents as it takes for the code to be as long as the state."""

from collections.abc import Callable

import torch
from torch import Tensor

from overtone.core.settings import require
from overtone.dictionaries.codes import Support, positions
from overtone.dictionaries.selectors.base import Rule, Selection
from overtone.dictionaries.selectors.rank import top_indices

SAMPLE = 16  # rows that say about how many latents the others need
SPARE = 1.3  # times as many as the neediest of them are looked at first
ALIKE = 1e-6  # share of a state's length by which lengths may differ from rounding alone
SHOWN = 1024  # scores of a sampled row that slices of the latents show each other


class Energy(Selection, kind="selection.energy"):
    """The k(x) best-scored latents of each row, k(x) = 1 + argmin_j | n_j - ||x - c|| |, where the scores are squared
    contributions, n_j is the root of the sum of the j largest and c the centre that is subtracted before encoding.

    At least one latent, at most those with a positive score, and never more than `most` (None: all). Where no row needs
    `most` latents, a smaller `most` gives the same answer in less time.
    Source: Lee et al. 2025, arXiv 2503.24277 (top-AFA).
    """

    has_budget = True
    latents_compete = True
    narrows = True
    sliceable = True

    def __init__(self, most: int | None = None) -> None:
        super().__init__()
        require(most is None or most >= 1, f"most={most} active latents per row: use at least 1.")
        self.most = most
        self._asked = 0  # latents per row that a rule that was too narrow asked for, times 2
        self._latest = 0
        self._depth = 0  # latents per row that a slice nominates

    def arguments(self) -> dict[str, int | None]:
        """most."""
        return {"most": self.most}

    def nominate(self, scores: Tensor, *, company: bool, states: Tensor | None = None) -> Support:
        """The best of each row, until their joint length is nearest to that of the state."""
        assert states is not None, "this rank needs the states, less the centre"
        if company and self.slice is not None:
            return Support.from_indices(top_indices(scores, self._offered(scores.shape[1])), scores.shape[1])
        best, latents = scores.topk(self._cap(scores.shape[1]), dim=1)
        chosen = torch.arange(best.shape[1], device=best.device) < _counts(best, states)[:, None]
        which = positions(chosen.view(-1))
        return Support(which // best.shape[1], latents.view(-1).index_select(0, which), *scores.shape)

    def rule(self, sample: Callable[[], Tensor], states: Tensor) -> Rule | None:
        """The best of each row, so many that they will mostly do; None where that is most of the latents."""
        if self.slice is not None:
            offered = self._offered(self.slice.size)
            return Rule(k=offered) if 2 * offered <= self.slice.size else None
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

    def confer(self, sample: Callable[[], Tensor], states: Tensor) -> None:
        """Agree on how many each slice must nominate, from what some rows keep of its latents."""
        assert self.slice is not None
        scores = sample()[:SAMPLE]
        parts = self.slice.gather(scores.topk(min(SHOWN, self._cap(scores.shape[1])), dim=1).values.T)
        best = torch.cat(parts).T.sort(dim=1, descending=True).values
        last = best.gather(1, _counts(best, states[:SAMPLE])[:, None] - 1)
        self._depth = int(SPARE * max(int((last <= part.T).sum(1).max()) for part in parts)) + 8

    def unite(self, nominees: Support, scores: Tensor, states: Tensor) -> Tensor | None:
        """The best of each row, where no slice can hold back a better one than those that are needed to tell."""
        assert self.slice is not None
        by_row, sizes = scores.view(nominees.n_rows, -1), [last - first for first, last in self.slice.spans]
        held = torch.zeros_like(by_row[:, 0])  # the largest score that may have been held back
        for part, size in zip(by_row.split([self._offered(size) for size in sizes], 1), sizes, strict=True):
            if part.shape[1] < self._cap(size):
                held = torch.maximum(held, part.amin(1))
        best, order = (t[:, : self._cap(sum(sizes))] for t in by_row.sort(dim=1, descending=True, stable=True))
        known = best >= held[:, None]
        reached = (best * known).sum(1).sqrt() >= states.norm(dim=1) * (1 + 1e-5)
        if not bool((reached | (held <= 0) | known.all(1)).all()):
            return None
        chosen = torch.arange(best.shape[1], device=best.device) < _counts(best, states)[:, None]
        return torch.zeros_like(by_row, dtype=torch.bool).scatter_(1, order, chosen).view(-1)

    def widen(self) -> None:
        """Look at twice as many."""
        self._asked = 2 * self._latest
        self._depth *= 2

    def _offered(self, n_latents: int) -> int:
        return min(self._depth, self._cap(n_latents))

    def _cap(self, n_latents: int) -> int:
        return min(self.most or n_latents, n_latents)


def _counts(best: Tensor, states: Tensor) -> Tensor:
    """(rows,) how many of the best scores, in falling order, are kept: as few as there are among lengths that differ by
    rounding alone, or noise would add latents."""
    exact = torch.promote_types(best.dtype, torch.float32)  # sums of many squares are none in half precision
    lengths, needed = best.cumsum(1, dtype=exact).sqrt(), states.to(exact).norm(dim=1, keepdim=True)
    gaps = (lengths - needed).abs()
    nearest = (gaps <= gaps.amin(1, keepdim=True) + ALIKE * needed).byte().argmax(1)
    return torch.minimum(nearest + 1, (best > 0).sum(1).clamp(min=1))
