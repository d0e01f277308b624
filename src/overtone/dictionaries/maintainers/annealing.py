"""The power of a penalty, lowered step by step, with the penalty's size kept."""

import torch
from torch import Tensor

from overtone.dictionaries.autoencoder import Autoencoder
from overtone.dictionaries.maintainers.base import Maintainer, Observation
from overtone.dictionaries.objectives.base import StepView
from overtone.dictionaries.objectives.penalty import amounts, powers

QUEUE = 10  # batches over which the penalty's size before and after an update is compared


class Annealing(Maintainer):
    """p goes from 1 to `end` in `updates` equal steps between the shares `start` and 1 of the training; at each,
    `factor` is multiplied by mean S(p) / mean S(next p) over the last batches, S(p) = sum of a_i^p, so that the penalty
    does not jump. Where there are not two batches to a step, several are taken at once, so that the last batch has
    `end` (in a training of three batches or more). Source: Karvonen et al. 2024, arXiv 2408.00113."""

    name = "annealing"
    sliceable = True

    def __init__(self, end: float, start: float, updates: int) -> None:
        super().__init__()
        self.end, self.start, self.updates = end, start, updates

    def begin(self, dictionary: Autoencoder) -> None:
        """p = 1."""
        device = dictionary.decoder.centre().device
        self.state = {
            "p": torch.ones((), dtype=torch.float64),
            "factor": torch.ones((), device=device),
            "sums": torch.zeros(2, QUEUE, device=device),
            "batches": torch.zeros((), dtype=torch.int64),
        }

    def power(self, progress: float) -> float:
        """p at a share of the training."""
        return self._after((progress - self.start) / (1 - self.start) * (self.updates + 1))

    def _after(self, done: float) -> float:
        return 1 - (1 - self.end) * min(max(int(done), 0), self.updates) / self.updates

    def wanted(self, progress: float) -> float:
        """p for the batch that follows one at a share of the training, of which `batches` came before."""
        share = progress / max(int(self.state["batches"]), 1)  # of a batch
        if 2 * share * (self.updates + 1) <= 1 - self.start:
            return self.power(progress)
        following, last = progress + share, 1 - share
        if share and following > last - share / 2:
            return self.end
        return self._after((following - self.start) / max(last - self.start, share) * self.updates + 1e-9)

    @torch.no_grad()
    def tally(self, step: StepView) -> Tensor:
        """(2,) the penalty's size with the power as it is, and as it will be after the next update; 0 where that is not
        near, since powers of all places take long."""
        if not self._is_near(step.progress):
            return step.missed.new_zeros(2)
        size, lower = amounts(step, step.values.abs()), self._lower(step.progress)
        return torch.stack([step.total(powers(size, p)) for p in (float(self.state["p"]), lower)])

    def _is_near(self, progress: float) -> bool:
        """Whether the power falls within QUEUE batches, or twice as many where they are smaller than before."""
        ahead = progress * (1 + 2 * QUEUE / max(int(self.state["batches"]), 1))
        return self.power(min(ahead, 1.0)) < float(self.state["p"]) - 1e-9

    def _next(self) -> float:
        return max(float(self.state["p"]) - (1 - self.end) / self.updates, self.end)

    def _lower(self, progress: float) -> float:
        """To what p falls next: by one step, or by several where that is due."""
        one, wanted = self._next(), self.wanted(progress)
        return wanted if wanted < one - 1e-9 else one

    @torch.no_grad()
    def observe(self, dictionary: Autoencoder, seen: Observation) -> None:
        """Take in the sizes of this batch, and lower p when it is time."""
        assert seen.tally is not None
        p, one = float(self.state["p"]), self._next()
        wanted, lower = self.wanted(seen.progress), self._lower(seen.progress)
        place = int(self.state["batches"]) % QUEUE
        self.state["sums"][:, place] = seen.tally
        self.state["batches"] += 1
        if wanted < p - 1e-9:
            before, now = self.state["sums"].sum(1) if lower == one else seen.tally  # others look one step ahead
            self.state["factor"].mul_(torch.where(now > 0, before / now, 1.0))
            self.state["p"].fill_(lower)
            self.state["sums"].zero_()
