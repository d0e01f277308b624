"""The threshold that stands in for a rank over the batch."""

import torch
from torch import Tensor

from overtone.dictionaries.autoencoder import Autoencoder
from overtone.dictionaries.maintainers.base import Maintainer, Observation


class RunningThreshold(Maintainer):
    """Base of maintainers that write the running mean of what they see to `selection.theta`.

    It starts at the first value and forgets over `horizon` of the training, so that short and long trainings both end
    with the threshold of their last part; the mean is kept in float64, where small changes are not lost.
    """

    def __init__(self, horizon: float = 0.02) -> None:
        super().__init__()
        self.horizon = horizon

    def begin(self, dictionary: Autoencoder) -> None:
        """Nothing seen yet."""
        theta = dictionary.selection.theta
        self.state = {
            "mean": theta.to(torch.float64, copy=True),
            "progress": torch.zeros((), dtype=torch.float64, device=theta.device),
        }

    def take_in(self, dictionary: Autoencoder, value: Tensor, progress: float) -> None:
        """Move the mean towards a value, as far as `progress` has gone on since the last one."""
        mean, last = self.state["mean"], self.state["progress"]
        step = torch.where(last > 0, progress - last, 1.0)
        mean.lerp_(value.double().to(mean.device), (step / self.horizon).clamp(0.001, 1.0))
        last.fill_(max(progress, 1e-12))
        dictionary.selection.theta.copy_(mean)


class ThresholdMean(RunningThreshold):
    """Running mean of the smallest selected score."""

    sliceable = True

    @torch.no_grad()
    def observe(self, dictionary: Autoencoder, seen: Observation) -> None:
        """Take in the smallest selected score of this batch."""
        if seen.chosen is None:
            return
        scores = dictionary.scores(seen.chosen) if seen.scores is None else seen.scores
        if len(scores):
            self.take_in(dictionary, scores.min(), seen.progress)
