"""Maintainers: what happens around the updates, outside of the gradient."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import ClassVar

from torch import Tensor

from overtone.dictionaries.autoencoder import Autoencoder
from overtone.dictionaries.choice import Chosen
from overtone.dictionaries.objectives.base import StepView
from overtone.dictionaries.slices import Slice


@dataclass(frozen=True, eq=False)
class Observation:
    """What a training step saw, without gradients.

    rows: tokens in the batch; counts: (latents,) rows in which each latent is active; chosen: the active places and
    their pre-activations (None where a dense pass did not list them); progress: as in StepView; step: the step itself,
    whose tensors must not be changed, None where its rows went by in blocks; scores: those of all active places, where
    the dictionary is a slice of the latents, and `counts`, `chosen` and `peaks` are about these alone; active: ()
    number of active places in the batch; peaks: (latents,) the largest pre-activations, where asked for; tally: what
    this maintainer's `tally` gave, of all rows.
    """

    rows: int
    counts: Tensor
    chosen: Chosen | None
    progress: float
    step: StepView | None = None
    scores: Tensor | None = None
    active: Tensor | None = None
    peaks: Tensor | None = None
    tally: Tensor | None = None

    @property
    def fired(self) -> Tensor:
        """(latents,) bool: which latents are active in the batch."""
        return self.counts > 0


@dataclass(frozen=True, eq=False)
class Surgery:
    """Row surgery that a maintainer asks for: parameters, per-latent state and the optimiser's moments move together.

    order: (latents,) permutation of all latents, new row i being old row order[i]; or fresh: (n,) latents that start
    anew, with `rows`: parameter's name in the dictionary -> (n, ...) new values; their moments become zero.
    """

    order: Tensor | None = None
    fresh: Tensor | None = None
    rows: Mapping[str, Tensor] = field(default_factory=dict)


class Maintainer:
    """Base of the maintainers. One object serves one training run; its tensors in `state` are saved and restored, and
    objectives find them in `StepView.state` as "name.key", where the maintainer has a name.

    Statistics must be mergeable over workers (counts, sums, extremes); per-latent state has latents first and is listed
    in `per_latent`, so that row surgery can move it with the rows it belongs to; `lists` are states that name latents
    by number, which objectives find by number in the whole dictionary. `wants_peaks`: `observe` needs `peaks`;
    `wants_step`: it looks at `step`, of all rows at once. `sliceable`: works the same on a slice of the latents
    (`dictionary.slice` says where that lies); `indivisible`: why it never can, where that is so.
    `seed`: of the training, for those that draw.
    """

    name: ClassVar[str] = ""
    per_latent: ClassVar[tuple[str, ...]] = ()
    lists: ClassVar[tuple[str, ...]] = ()
    wants_peaks: ClassVar[bool] = False
    wants_step: ClassVar[bool] = False
    sliceable: ClassVar[bool] = False
    indivisible: ClassVar[str] = ""
    seed: int = 0
    state: dict[str, Tensor]

    def __init__(self) -> None:
        self.state = {}

    def begin(self, dictionary: Autoencoder) -> None:
        """Called once before the first step, after the dictionary's start."""

    def tally(self, step: StepView) -> Tensor | None:
        """What it wants to know of some rows of a batch, without gradients: `observe` finds the sum over all rows.
        None: nothing."""
        return None

    def observe(self, dictionary: Autoencoder, seen: Observation) -> None:
        """Called after the backward pass of each step."""

    def told(self) -> dict[str, float]:
        """What records of the training say of it, by name; the same in all processes."""
        return {}

    def unit_rows(self, dictionary: Autoencoder) -> Tensor | None:
        """The parameter, if there is one, whose rows the optimiser is to keep at length one; what of their gradient
        lies along them is dropped beforehand."""
        return None

    def after_update(self, dictionary: Autoencoder) -> None:
        """Called after the optimiser."""

    def operate(self, dictionary: Autoencoder) -> Surgery | None:
        """Row surgery that is due, asked for after each update."""
        return None

    def reorder(self, order: Tensor, where: Slice) -> None:
        """Follow a permutation of all latents: new place i holds what place order[i] held. where: those at hand."""
        for key in self.per_latent:
            self.state[key] = where.moved(self.state[key], order)
        for key in self.lists:
            self.state[key] = where.renamed(self.state[key], order)

    def renew(self, latents: Tensor) -> None:
        """Forget what was known of latents that start anew: their state becomes zero."""
        for key in self.per_latent:
            self.state[key][latents] = 0
