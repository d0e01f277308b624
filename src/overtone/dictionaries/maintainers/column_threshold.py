"""The thresholds, one per latent, that stand in for a rank over the rows of a batch."""

import torch

from overtone.dictionaries.autoencoder import Autoencoder
from overtone.dictionaries.maintainers.base import Observation
from overtone.dictionaries.maintainers.threshold_mean import RunningThreshold
from overtone.dictionaries.selectors.columns import Columns


class ColumnThreshold(RunningThreshold):
    """Running mean of the cut of each latent."""

    per_latent = ("mean",)
    sliceable = True

    @torch.no_grad()
    def observe(self, dictionary: Autoencoder, seen: Observation) -> None:
        """Take in the cuts of this batch."""
        assert isinstance(dictionary.selection, Columns)
        assert dictionary.selection.cuts is not None, "a step was selected before"
        self.take_in(dictionary, dictionary.selection.cuts, seen.progress)
