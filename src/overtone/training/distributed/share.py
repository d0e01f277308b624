"""What one process has of a training: all of it, some rows of each batch, or some of the latents."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from torch import Tensor

from overtone.core.tensor_files import Blocks, Readable
from overtone.dictionaries.autoencoder import Autoencoder
from overtone.dictionaries.choice import Chosen
from overtone.dictionaries.dictionary import Dictionary
from overtone.dictionaries.kernels.update import Moments
from overtone.dictionaries.maintainers.base import Maintainer
from overtone.dictionaries.objectives.base import Objective, StepView
from overtone.training.adam import norm_of
from overtone.training.step import Given, ending, forward


class SharedStep(StepView, Protocol):
    """A step as objectives see it, and what training asks of it besides: the active places that maintainers observe,
    their scores where the dictionary alone could not say them, and how often its latents fired."""

    chosen: Chosen | None
    scores: Tensor | None

    def counts(self) -> Tensor:
        """(latents,) in how many rows of this batch each latent of `dictionary` is active."""
        ...


class Rows:
    """The rows of a batch that a process computes where they go by in blocks; here it has all of them, and nothing is
    exchanged. copies: what gradients of its part are multiplied with, since `Share.reduce` may take their mean."""

    copies = 1

    def own(self, given: Given) -> Given:
        """This process's rows."""
        return given

    def whole(self, part: Tensor) -> Tensor:
        """The rows of all processes."""
        return part

    def total(self, part: Tensor) -> Tensor:
        """The sum of what all processes have of their rows."""
        return part

    def highest(self, part: Tensor) -> Tensor:
        """The elementwise maximum of it."""
        return part


class Share(Protocol):
    """The seam between a run and the other processes. All of them call the same methods in the same order, `accept`
    first.

    model: what this process trains.
    alone: there is no other process.
    """

    model: Autoencoder
    alone: bool

    def accept(self, objectives: Sequence[Objective], maintainers: Sequence[Maintainer]) -> None:
        """Raise CapabilityError if one of them cannot work on what this process has."""
        ...

    def forward(self, given: Given) -> SharedStep:
        """The step on a whole batch, every process giving the same one."""
        ...

    def rows(self, given: Given) -> Rows:
        """Which rows of a batch are this process's own, where they go by in blocks."""
        ...

    def block(self, given: Given) -> SharedStep:
        """The step on some of its own rows."""
        ...

    def ending(self, given: Given, missed: Tensor) -> StepView:
        """What terms that need no values see of a batch whose rows went by in blocks; missed: without gradients."""
        ...

    def listed(self, name: str, latents: Tensor) -> Tensor:
        """A list of latents of the whole dictionary, from those of this process's model. The same tensor is asked for
        once under a name."""
        ...

    def total(self, value: Tensor) -> Tensor:
        """The sum over the whole dictionary of what `value` is over this process's latents."""
        ...

    def reduce(self, gradients: Mapping[str, Tensor]) -> None:
        """Make gradients those of the whole batch, in place."""
        ...

    def norm(self, moments: Mapping[str, Moments]) -> Tensor:
        """The norm of all gradients of the whole dictionary together, from those of this process's parameters."""
        ...

    def mean_over_latents(self, value: float) -> float:
        """The mean over the whole dictionary of what is `value` on average over this process's latents."""
        ...

    def whole(self, tensors: Mapping[str, Tensor]) -> dict[str, Blocks]:
        """A run's tensors as one process would have them. All processes must go through all blocks, in one order; where
        each has a part only the first one sees them."""
        ...

    def own(self, name: str, stored: Readable) -> Tensor:
        """This process's part of a tensor that `whole` gave. It may share memory with `stored`."""
        ...

    def dictionary(self) -> Dictionary:
        """The whole dictionary, at the end of a training. Where processes hold parts of it the first one puts it
        together, the others get an `Elsewhere`; the model is empty afterwards."""
        ...


class Complete:
    """What a process answers that has all latents."""

    model: Autoencoder
    alone = False

    def rows(self, given: Given) -> Rows:
        """All of them."""
        return Rows()

    def block(self, given: Given) -> SharedStep:
        """The step of the dictionary."""
        return forward(self.model, given)

    def ending(self, given: Given, missed: Tensor) -> StepView:
        """A step without values."""
        return ending(self.model, given, missed)

    def listed(self, name: str, latents: Tensor) -> Tensor:
        """The same: it has them all."""
        return latents

    def total(self, value: Tensor) -> Tensor:
        """The same."""
        return value

    def norm(self, moments: Mapping[str, Moments]) -> Tensor:
        """Their norm."""
        return norm_of(moments)

    def mean_over_latents(self, value: float) -> float:
        """The same."""
        return value

    def whole(self, tensors: Mapping[str, Tensor]) -> dict[str, Blocks]:
        """The same."""
        return {name: Blocks.of(tensor) for name, tensor in tensors.items()}

    def own(self, name: str, stored: Readable) -> Tensor:
        """The same."""
        return stored[...]

    def dictionary(self) -> Dictionary:
        """The model."""
        return self.model


@dataclass(eq=False)
class Alone(Complete):
    """Everything: there is one process."""

    model: Autoencoder
    alone = True

    def accept(self, objectives: Sequence[Objective], maintainers: Sequence[Maintainer]) -> None:
        """All can."""

    def forward(self, given: Given) -> SharedStep:
        """The step."""
        return forward(self.model, given)

    def reduce(self, gradients: Mapping[str, Tensor]) -> None:
        """They are complete."""
