"""Columns: a budget for each latent, spent on the rows of a batch that want it most."""

from collections.abc import Callable

import torch
from torch import Tensor

from overtone.core.settings import require
from overtone.dictionaries.codes import Support, counted
from overtone.dictionaries.selectors.base import Rule, Selection
from overtone.dictionaries.selectors.rank import check_budget, places
from overtone.dictionaries.slices import Slice

SPARE = 16  # nominees of a latent beyond twice its budget: enough that a batch rarely has to be looked at twice


class Columns(Selection, kind="selection.columns"):
    """The m_i best positive scores of each latent i among the rows of a batch, the m_i together `budget` x rows,
    rounded as for `Rank`.

    `share` (latents,) says what part of the rows each latent gets, so that m_i = share_i x rows up to rounding; it
    starts even, and maintainers may change it. Rounding is systematic sampling: `phase` in [0, 1) shifts it, and moved
    from batch to batch it gives every latent its share even where that is less than one row. A latent with fewer
    positive scores than m_i keeps those. The inference form is one threshold per latent, `theta`. `cuts`: what the last
    batch says it should be, halfway between the last score kept and the first one dropped; None before the first. In a
    batch that gives a latent no row it lies above all scores: where one of an exponential tail lies that the latent
    exceeds as often as its share says, or rare latents would fire once in almost every batch.
    Source: Feature Choice, Ayonrinde 2024, arXiv 2411.02124.
    """

    has_budget = True
    rows_compete = True
    has_threshold_form = True
    per_latent = ("theta", "share")
    sliceable = True
    share: Tensor
    phase: Tensor

    def __init__(self, n_latents: int, budget: int | float) -> None:
        super().__init__()
        check_budget("batch", budget)
        self.budget = budget
        self.register_buffer("theta", torch.zeros(n_latents))
        self.register_buffer("share", torch.full((n_latents,), budget / n_latents))
        self.register_buffer("phase", torch.zeros((), dtype=torch.float64))
        self.cuts: Tensor | None = None
        self._hint: Tensor | None = None  # scores below it are not among the best: only speed depends on it
        self._lacking: Tensor | None = None
        self._generous = False

    def arguments(self) -> dict[str, int | float]:
        """n_latents and budget; the rest is state."""
        return {"n_latents": self.theta.shape[0], "budget": self.budget}

    def check(self, n_latents: int) -> None:
        """Raise SettingError if the budget exceeds the latents."""
        require(
            self.budget <= n_latents,
            f"k={self.budget} active latents per row, but there are only {n_latents} latents. Use k <= {n_latents}.",
        )

    def grants(self, n_rows: int) -> Tensor:
        """(latents,) int64 m_i for a batch: together budget x rows, each within one of share x rows. Slices of the
        latents ask this together."""
        where = self.slice or Slice.all(len(self.share))
        ends, total = where.whole(self.share).double().cumsum(0), places(self.budget, n_rows)
        ends = ends * (total / ends[-1]) + self.phase
        ends[-1] = total + self.phase
        starts = torch.cat([self.phase.view(1), ends[:-1]])
        return where.own((ends.floor() - starts.floor()).long().clamp(max=n_rows))

    def nominate(self, scores: Tensor, *, company: bool, states: Tensor | None = None) -> Support:
        """What exceeds the hint (in company) or the thresholds (alone)."""
        if not company:
            return Support.from_mask(scores > self.theta)
        return Support.from_mask(scores > self._hint_from(lambda: scores))

    def rule(self, sample: Callable[[], Tensor], states: Tensor) -> Rule:
        """What exceeds the hint."""
        return Rule(shift=self._hint_from(sample), hinted=True)

    def alone(self) -> Rule | None:
        """All places above their threshold, if each latent has one."""
        return Rule(shift=self.theta.detach()) if bool(self.theta.isfinite().all()) else None

    def _hint_from(self, sample: Callable[[], Tensor]) -> Tensor:
        if self._hint is None:
            self._hint = torch.zeros_like(self.theta) if self._generous else self._guess(sample())
        return self._hint

    def _guess(self, scores: Tensor) -> Tensor:
        """(latents,) a score that about three times the share of each latent exceeds, from some rows."""
        rows = scores.sort(0, descending=True).values
        place = (3 * self.share * len(rows)).long() + 4
        found = rows.gather(0, place.clamp(max=len(rows) - 1)[None])[0]
        return torch.where(place < len(rows), found, 0).clamp(min=0)

    def settle(self, nominees: Support, scores: Tensor) -> Tensor | None:
        """The best m_i nominees of each latent; equal scores go to earlier rows."""
        assert self._hint is not None
        wanted = self.grants(nominees.n_rows)
        counts = counted(nominees.latents, len(wanted))
        lacking = (counts <= wanted.clamp_min(1)) & (self._hint > 0)  # cuts take the first one dropped too, and two
        if bool(lacking.any()):
            self._lacking = lacking
            return None
        best = scores.argsort(descending=True, stable=True)
        order = best[nominees.latents[best].argsort(stable=True)]
        starts = counts.cumsum(0) - counts
        latents, ranked = nominees.latents[order], scores[order]
        rank = torch.arange(len(order), device=order.device) - starts[latents]
        keep = torch.empty_like(rank, dtype=torch.bool)
        keep[order] = rank < wanted[latents]
        self._note(ranked, starts, counts, wanted, self.share * nominees.n_rows)
        return keep

    def _note(self, ranked: Tensor, starts: Tensor, counts: Tensor, wanted: Tensor, shares: Tensor) -> None:
        """Thresholds and hints from scores that are sorted within each latent. shares: what `wanted` rounds."""
        assert self._hint is not None
        ranked = torch.cat([ranked, ranked.new_zeros(1)])
        last = len(ranked) - 1

        def at(place: Tensor, otherwise: Tensor) -> Tensor:
            inside = (place >= 0) & (place < counts)
            return torch.where(inside, ranked[torch.where(inside, starts + place, last)], otherwise)

        dropped = at(wanted, torch.zeros_like(ranked[:1]).expand(len(counts)))
        kept = at(wanted - 1, dropped)
        second = at(torch.ones_like(wanted), torch.zeros_like(dropped))
        without = dropped + _beyond(shares.to(ranked.dtype)) * (dropped - second).clamp_min(0)
        cuts = torch.where((wanted == 0) & (counts > 0), without, (kept + dropped) / 2)
        self.cuts = torch.where(counts < wanted, 0, cuts)
        self._hint = at(2 * wanted + SPARE, 0.9 * self._hint.to(ranked.dtype))

    def widen(self) -> None:
        """Nominate all positive scores of the latents that had too few; of all latents before the first batch."""
        self._generous = True
        if self._hint is not None and self._lacking is not None:
            self._hint = torch.where(self._lacking, 0, self._hint)

    def scale_codes(self, factor: float) -> None:
        """Scale the thresholds."""
        self.theta.mul_(factor)

    def _apply(self, fn, recurse=True):  # noqa: ANN001  (torch's own signature)
        kept = {name: getattr(self, name) for name in ("theta", "share", "phase")}
        super()._apply(fn, recurse)
        for name, value in kept.items():
            if getattr(self, name).dtype in (torch.float16, torch.bfloat16):
                setattr(self, name, value.to(getattr(self, name).device))
        return self


def _beyond(shares: Tensor) -> Tensor:
    """By how many gaps between the two best scores of a batch the threshold lies above the best where no row is given.

    Of an exponential tail whose mean gap is e the best of N rows lies e (log N + 0.577) up, and what s of N rows exceed
    e (log N - log s). A share s of the batches says best - e / 2, the others best + a e; the mean of both is what it
    should be for a = (s / 2 - 1 / 2 - log s) / (1 - s), where 1 / 2 stands for 0.577 so that nothing jumps at s = 1.
    """
    s = shares.clamp(0.01, 0.99)
    return (s / 2 - 0.5 - s.log()) / (1 - s)
