"""Objectives: the terms of a training loss, each a function of one training step."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Protocol

from torch import Tensor

if TYPE_CHECKING:
    from overtone.dictionaries.autoencoder import Autoencoder
    from overtone.dictionaries.encoders.base import Heads


class StepView(Protocol):
    """What an objective may see of one training step; all tensors in the dictionary's units.

    x: (rows, width) states to be reconstructed (for a transcoder the targets); missed: (rows, width) by how much the
    reconstruction x_hat is above them, with gradients; centred: (rows, width) encoded states less the centre, without
    gradients; values, heads: the codes' values and the heads they
    come from, with gradients, in whatever layout the step uses: the places of a support, or, after a dense pass, (rows,
    latents), where `dense` is true; `at` brings a (latents,) vector into that layout; norms: (latents,) lengths of the
    decoder's rows, with gradients; dead: (n,) int64 latents that count as dead; progress: share of the training's
    tokens seen before this step, in [0, 1); state: what the maintainers publish, "name.key" -> tensor.
    """

    dictionary: "Autoencoder"
    x: Tensor
    missed: Tensor
    centred: Tensor
    values: Tensor
    heads: "Heads"
    dead: Tensor
    progress: float
    state: Mapping[str, Tensor]

    @property
    def dense(self) -> bool:
        """Whether values and heads are (rows, latents)."""
        ...

    @property
    def squared_error(self) -> Tensor:
        """() ||x_hat - x||^2 over all rows, with gradients."""
        ...

    @property
    def norms(self) -> Tensor:
        """(latents,) lengths of the decoder's rows, with gradients."""
        ...

    @property
    def latents(self) -> Tensor:
        """The latent of each value: (places,), or (1, latents) after a dense pass."""
        ...

    @property
    def centre(self) -> "Tensor | float":
        """What was subtracted before encoding, with gradients for what uses it with this process's latents."""
        ...

    def everyones(self, part: Tensor, /) -> Tensor:
        """The sum of a part, computed from the latents of `dictionary`, over the holders of all latents; with
        gradients."""
        ...

    def at(self, vector: Tensor, /) -> Tensor:
        """A (latents,) vector in the layout of `values`, with gradients."""
        ...

    def summed(self, values: Tensor, /) -> Tensor:
        """(rows,) sums over each row's latents of something in the layout of `values`, with gradients."""
        ...

    def total(self, values: Tensor, /) -> Tensor:
        """() sum over all rows and latents of something in the layout of `values`, or, after a dense pass, of
        (latents,) sums of it; with gradients."""
        ...

    def decoded(self, values: Tensor, keep: Tensor | None = None, *, frozen: bool = False) -> Tensor:
        """(rows, width) decoding, without the constant, of other values in the layout of `values`. keep: boolean mask
        in the same layout, places that are decoded; frozen: no gradient for the decoder."""
        ...

    def decoded_from(self, latents: Tensor, k: int) -> Tensor:
        """(rows, width) decoding, without the constant, of the k best-scored of the given latents in each row: an extra
        code with exact gradients to the encoder and decoder rows of these latents."""
        ...


@dataclass(frozen=True)
class Objective:
    """Base of the terms: called with a step, returns a scalar that is added to the loss. `needs_all`: it looks at
    latents that were not selected, so the step must be a dense one, which is slower. `sliceable`: it sees latents
    through the step alone, so that processes can hold slices of them, and adds up over latents by `summed` and `total`:
    after a dense pass a process has the values of its own latents. `indivisible`: why it never can, where that is so.

    A dense step may go through its rows block by block if each of its terms allows it in one of two ways. `separable`:
    the term is `of_mean` of the mean over rows of something that each row has by itself; for most that is all it is,
    `bent` says that it is not, and `mean` is then that mean. Not `needs_values`: it looks at no values and no heads and
    sends no gradient through `missed`, so it can be computed at the end, with the whole batch.
    """

    needs_all: ClassVar[bool] = False
    sliceable: ClassVar[bool] = False
    indivisible: ClassVar[str] = ""
    separable: ClassVar[bool] = False
    needs_values: ClassVar[bool] = True

    def __call__(self, step: StepView) -> Tensor:
        """The term's value, dimensionless: it does not change when all states are multiplied by a constant."""
        raise NotImplementedError

    @property
    def bent(self) -> bool:
        """Whether a separable term is no mean itself but a function of one."""
        return False

    def mean(self, step: StepView) -> Tensor:
        """The mean over rows of which a bent term is a function."""
        raise NotImplementedError

    def of_mean(self, mean: Tensor, progress: float, state: Mapping[str, Tensor]) -> Tensor:
        """A bent term as a function of the mean of a whole batch; progress, state: as in StepView."""
        raise NotImplementedError
