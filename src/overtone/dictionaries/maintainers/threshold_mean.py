"""The threshold that stands in for a rank over the batch."""

import torch
from torch import Tensor

from overtone.dictionaries.autoencoder import Autoencoder, Chosen
from overtone.dictionaries.maintainers.base import Maintainer


class ThresholdMean(Maintainer):
    """Running mean of the smallest selected score, written to `selection.theta`.

    It starts at the first value and forgets over `horizon` of the training, so that short and long trainings both end
    with the threshold of their last part; the mean is kept in float64, where small changes are not lost.
    """

    def __init__(self, horizon: float = 0.02) -> None:
        super().__init__()
        self.horizon = horizon

    def begin(self, dictionary: Autoencoder) -> None:
        """Nothing seen yet."""
        theta = dictionary.selection.theta
        self.state = {"mean": theta.double(), "seen": torch.zeros((), dtype=torch.float64, device=theta.device)}

    @torch.no_grad()
    def observe(self, dictionary: Autoencoder, chosen: Chosen, values: Tensor, progress: float) -> None:
        """Take in the smallest selected score of this batch."""
        at = chosen.support.at
        scores = dictionary.score(dictionary.encoder.heads(chosen.u, at), at)
        if not len(scores):
            return
        mean, seen = self.state["mean"], self.state["seen"]
        step = progress - seen if float(seen) > 0 else torch.ones_like(seen)
        mean.lerp_(scores.min().double(), (step / self.horizon).clamp(0.001, 1.0))
        seen.fill_(max(progress, 1e-12))
        dictionary.selection.theta.copy_(mean)
