"""Maintainers: what happens around the updates, outside of the gradient."""

from torch import Tensor

from overtone.dictionaries.autoencoder import Autoencoder, Chosen


class Maintainer:
    """Base of the maintainers. One object serves one training run; its tensors in `state` are saved and restored.

    Statistics must be mergeable over workers (counts, sums, extremes); per-latent state has latents first, so that row
    surgery can move it with the rows it belongs to.
    """

    state: dict[str, Tensor]

    def __init__(self) -> None:
        self.state = {}

    def begin(self, dictionary: Autoencoder) -> None:
        """Called once before the first step, after the dictionary's start."""

    def observe(self, dictionary: Autoencoder, chosen: Chosen, values: Tensor, progress: float) -> None:
        """Called after the forward pass with the active places and their values (no gradients)."""

    def before_update(self, dictionary: Autoencoder) -> None:
        """Called after the backward pass, before the optimiser."""

    def after_update(self, dictionary: Autoencoder) -> None:
        """Called after the optimiser."""
