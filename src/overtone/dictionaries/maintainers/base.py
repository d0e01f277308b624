"""Maintainers: what happens around the updates, outside of the gradient."""

from dataclasses import dataclass

from torch import Tensor

from overtone.dictionaries.autoencoder import Autoencoder, Chosen


@dataclass(frozen=True, eq=False)
class Observation:
    """What a training step saw, without gradients.

    rows: tokens in the batch; fired: (latents,) bool, which latents were active in it; chosen: the active places and
    their pre-activations (None where a dense pass did not list them); progress: as in StepView.
    """

    rows: int
    fired: Tensor
    chosen: Chosen | None
    progress: float


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

    def observe(self, dictionary: Autoencoder, seen: Observation) -> None:
        """Called after the backward pass of each step."""

    def before_update(self, dictionary: Autoencoder) -> None:
        """Called after the backward pass, before the optimiser."""

    def after_update(self, dictionary: Autoencoder) -> None:
        """Called after the optimiser."""
