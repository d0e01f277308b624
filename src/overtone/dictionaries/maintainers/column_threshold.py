"""The thresholds, one per latent, that stand in for a rank over the rows of a batch."""

import torch

from overtone.dictionaries.autoencoder import Autoencoder
from overtone.dictionaries.maintainers.base import Maintainer, Observation
from overtone.dictionaries.selectors.columns import Columns


class ColumnThreshold(Maintainer):
    """Running mean of the cut of each latent, written to `selection.theta`; starts at the first and forgets over
    `horizon` of the training, as `ThresholdMean` does."""

    per_latent = ("mean",)

    def __init__(self, horizon: float = 0.02) -> None:
        super().__init__()
        self.horizon = horizon

    def begin(self, dictionary: Autoencoder) -> None:
        """Nothing seen yet."""
        theta = dictionary.selection.theta
        self.state = {"mean": theta.double(), "progress": torch.zeros((), dtype=torch.float64, device=theta.device)}

    @torch.no_grad()
    def observe(self, dictionary: Autoencoder, seen: Observation) -> None:
        """Take in the cuts of this batch."""
        selection, mean, last = dictionary.selection, self.state["mean"], self.state["progress"]
        assert isinstance(selection, Columns)
        step = seen.progress - last if float(last) > 0 else torch.ones_like(last)
        mean.lerp_(selection.cuts.double().to(mean.device), (step / self.horizon).clamp(0.001, 1.0))
        last.fill_(max(seen.progress, 1e-12))
        selection.theta.copy_(mean)
