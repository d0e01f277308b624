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
    does not jump. Source: Karvonen et al. 2024, arXiv 2408.00113."""

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
        done = (progress - self.start) / (1 - self.start) * (self.updates + 1)
        return 1 - (1 - self.end) * min(max(int(done), 0), self.updates) / self.updates

    @torch.no_grad()
    def tally(self, step: StepView) -> Tensor:
        """(2,) the penalty's size with the power as it is, and as it will be after the next update; 0 where that is not
        near, since powers of all places take long."""
        if not self._is_near(step.progress):
            return step.x_hat.new_zeros(2)
        size = amounts(step, step.values.abs())
        return torch.stack([step.total(powers(size, p)) for p in (float(self.state["p"]), self._next())])

    def _is_near(self, progress: float) -> bool:
        """Whether the power falls within QUEUE batches, or twice as many where they are smaller than before."""
        ahead = progress * (1 + 2 * QUEUE / max(int(self.state["batches"]), 1))
        return self.power(min(ahead, 1.0)) < float(self.state["p"]) - 1e-9

    def _next(self) -> float:
        return max(float(self.state["p"]) - (1 - self.end) / self.updates, self.end)

    @torch.no_grad()
    def observe(self, dictionary: Autoencoder, seen: Observation) -> None:
        """Take in the sizes of this batch, and lower p when it is time."""
        assert seen.tally is not None
        p, wanted = float(self.state["p"]), self.power(seen.progress)
        place = int(self.state["batches"]) % QUEUE
        self.state["sums"][:, place] = seen.tally
        self.state["batches"] += 1
        if wanted < p - 1e-9:
            before, now = self.state["sums"].sum(1)
            self.state["factor"].mul_(torch.where(now > 0, before / now, 1.0))
            self.state["p"].fill_(self._next())
            self.state["sums"].zero_()
