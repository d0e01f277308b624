"""Objectives: the terms of a training loss, each a function of one training step."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from torch import Tensor

if TYPE_CHECKING:
    from overtone.dictionaries.autoencoder import Autoencoder


class StepView(Protocol):
    """What an objective may see of one training step; all tensors in the dictionary's units.

    x, x_hat: (rows, width) states and their reconstruction; values: the codes' values, with gradients, in whatever
    layout the step uses; `at` brings a (latents,) vector into that layout; dead: (n,) int64 latents that count as dead;
    progress: share of the training's tokens seen before this step, in [0, 1).
    """

    dictionary: "Autoencoder"
    x: Tensor
    x_hat: Tensor
    values: Tensor
    dead: Tensor
    progress: float

    def at(self, vector: Tensor) -> Tensor:
        """A (latents,) vector in the layout of `values`, with gradients."""
        ...

    def decoded_from(self, latents: Tensor, k: int) -> Tensor:
        """(rows, width) decoding, without the constant, of the k best-scored of the given latents in each row: an extra
        code with exact gradients to the encoder and decoder rows of these latents."""
        ...


@dataclass(frozen=True)
class Objective:
    """Base of the terms: called with a step, returns a scalar that is added to the loss."""

    def __call__(self, step: StepView) -> Tensor:
        """The term's value, dimensionless: it does not change when all states are multiplied by a constant."""
        raise NotImplementedError
