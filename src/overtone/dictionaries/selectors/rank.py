"""Ranks: a budget of active latents, spent within each row or over a batch of rows."""

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from overtone.core.settings import require
from overtone.dictionaries.codes import Support, positions
from overtone.dictionaries.selectors.base import Rule, Selection

FIRST_MARGIN = 0.2  # until two batches have shown how far the cut moves


class Rank(Selection, kind="selection.rank"):
    """The `budget` best-scored latents of each row (scope "row"), or the best budget x rows of a batch (scope "batch").

    Over a batch the budget may be a fraction, such as 1.4: budget x rows is then rounded to the nearest whole number
    (halves to the even one), at least 1. In scope "batch" the inference form is one threshold on the score, `theta`,
    learned while training (the running mean of the smallest selected score), so that eval mode treats rows alone.
    Sources: Gao et al. 2024, arXiv 2406.04093; Bussmann et al. 2024, arXiv 2412.06410.
    """

    has_budget = True
    latents_compete = True
    sliceable = True

    def __init__(self, scope: str, budget: int | float) -> None:
        super().__init__()
        check_budget(scope, budget)
        self.scope, self.budget = scope, budget
        self.rows_compete = self.has_threshold_form = scope == "batch"
        # Scores below the pivot will not make the cut, which moves by less than the margin from batch to batch: hints,
        # on which only speed depends.
        self._pivot: Tensor | float | None = None
        self._cut: Tensor | None = None
        self._margin: Tensor | float = FIRST_MARGIN
        self._halved = False
        if scope == "batch":
            self.register_buffer("theta", torch.zeros(()))

    def arguments(self) -> dict[str, str | int | float]:
        """scope and budget."""
        return {"scope": self.scope, "budget": self.budget}

    def check(self, n_latents: int) -> None:
        """Raise SettingError if the budget exceeds the latents."""
        require(
            self.budget <= n_latents,
            f"k={self.budget} active latents per row, but there are only {n_latents} latents. "
            f"Use k <= {n_latents}, or more latents.",
        )

    @property
    def per_row(self) -> int:
        """The budget of each row, in scope "row"."""
        return int(self.budget)

    def nominate(self, scores: Tensor, *, company: bool, states: Tensor | None = None) -> Support:
        """The best of each row; or what exceeds the hint (in company) or the threshold (alone)."""
        if self.scope == "row":
            return Support.from_indices(top_indices(scores, self.per_row), scores.shape[1])
        if not company:
            return Support.from_mask(scores > self.theta)
        if self._pivot is None:
            self._pivot = self._guess(scores)
        return Support.from_mask(scores > self._pivot)

    def rule(self, sample: Callable[[], Tensor], states: Tensor) -> Rule:
        """The best of each row, or what exceeds the hint."""
        if self.scope == "row":
            return Rule(k=self.per_row)
        if self._pivot is None:
            self._pivot = self._guess(sample())
        return Rule(floor=float(self._pivot))

    def alone(self) -> Rule:
        """The best of each row, or what exceeds the threshold."""
        return Rule(k=self.per_row) if self.scope == "row" else Rule(floor=float(self.theta))

    def _guess(self, scores: Tensor) -> float:
        """A score that about three times the budget exceeds, from at most 4096 of the scores."""
        sample = scores.flatten()[:: max(1, scores.numel() // 4096)]
        rank = len(sample) - int(3 * self.budget * len(sample) / scores.shape[1])
        return max(0.0, float(sample.kthvalue(rank).values)) if rank > 0 else 0.0

    def settle(self, nominees: Support, scores: Tensor) -> Tensor | None:
        """The best budget x rows positive scores; equal scores at the cut go to earlier rows, then earlier latents."""
        wanted = places(self.budget, nominees.n_rows)
        if len(scores) == wanted or (len(scores) < wanted and self._pivot == 0):
            return torch.ones_like(scores, dtype=torch.bool)
        if len(scores) < wanted:
            return None
        cut = torch.kthvalue(scores, len(scores) - wanted + 1).values
        above, ties = scores > cut, scores == cut
        self._learn(cut)
        return above | (ties & (ties.cumsum(0) <= wanted - above.sum()))

    def unite(self, nominees: Support, scores: Tensor, states: Tensor) -> Tensor | None:
        """The best budget of each row, to which every slice nominated as many; or as `settle`."""
        if self.scope == "batch":
            return self.settle(nominees, scores)
        by_row = scores.view(nominees.n_rows, -1)
        best = by_row.topk(self.per_row, dim=1, sorted=False).indices
        return torch.zeros_like(by_row, dtype=torch.bool).scatter_(1, best, True).view(-1)

    def _learn(self, cut: Tensor) -> None:
        if self._cut is not None:
            moved = 2 * (1 - cut / self._cut.to(cut).clamp_min(1e-30)).abs()
            self._margin = moved.clamp_min(0.7 * self._margin).clamp(0.03, 0.5)
        self._cut, self._halved = cut, False
        self._pivot = (cut * (1 - self._margin)).clamp_min(0)

    def widen(self) -> None:
        """Halve the hint; forget it if that was not enough."""
        self._pivot = 0.0 if self._halved or self._pivot is None else self._pivot / 2
        self._halved = True

    def scale_codes(self, factor: float) -> None:
        """Scale the threshold."""
        if self.scope == "batch":
            self.theta.mul_(factor)

    def _apply(self, fn, recurse=True):  # noqa: ANN001  (torch's own signature)
        theta = self.theta if self.scope == "batch" else None
        super()._apply(fn, recurse)
        self._pivot, self._cut, self._margin = None, None, FIRST_MARGIN  # they are of the device where they were found
        if theta is not None and self.theta.dtype in (torch.float16, torch.bfloat16):
            self.theta = theta.to(self.theta.device)  # a running mean would stand still in half precision
        return self


def check_budget(scope: str, budget: int | float) -> None:
    """Raise SettingError unless a rank of this scope can have this budget: whole and at least 1 within each row, above
    0 over a batch."""
    require(scope in ("row", "batch"), f"scope={scope!r}: a rank is taken over a 'row' or a 'batch'.")
    require(budget > 0, f"k={budget} active latents per row: use more than 0.")
    require(
        scope == "batch" or budget % 1 == 0,
        f"k={budget} active latents per row: each row keeps a whole number. Use a whole k, or have k x rows chosen "
        "over the batch (scope batch, or batch_top_k).",
    )


def places(budget: int | float, n_rows: int) -> int:
    """How many places a budget per row comes to in a batch of rows: the nearest whole number, at least 1."""
    return max(1, round(budget * n_rows))


def top_indices(scores: Tensor, k: int) -> Tensor:
    """(rows, k) int64 places of the k largest scores of each row, in no particular order."""
    mask = _reaching_the_kth(scores, k)
    if mask is None:
        return scores.topk(k, dim=1, sorted=False).indices
    return positions(mask.view(-1)).view(-1, k) % scores.shape[1]


def top_mask(scores: Tensor, k: int) -> Tensor:
    """(rows, latents) bool: where the k largest scores of each row are."""
    mask = _reaching_the_kth(scores, k)
    if mask is None:
        best = scores.topk(k, dim=1, sorted=False).indices
        return torch.zeros_like(scores, dtype=torch.bool).scatter_(1, best, True)
    return mask


def _reaching_the_kth(scores: Tensor, k: int) -> Tensor | None:
    """`top_mask` as numpy finds it on a CPU, in a half to a sixth of the time; None where that does not tell: on
    accelerators, in half precision, and where scores are equal or no numbers."""
    n_rows, n = scores.shape
    if scores.device.type != "cpu" or scores.dtype not in (torch.float32, torch.float64) or not 0 < k < n:
        return None
    numbers = scores.detach().numpy()
    least = np.partition(numbers, n - k, axis=1)[:, n - k]
    mask = numbers >= least[:, None]
    return torch.from_numpy(mask) if np.count_nonzero(mask) == n_rows * k else None
