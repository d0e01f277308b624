"""The selection slot: which latents are active. There are two kinds, ranks and thresholds."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

from torch import Tensor

from overtone.core.settings import require
from overtone.dictionaries.codes import Support
from overtone.dictionaries.lengths import of_length
from overtone.dictionaries.parts import Part
from overtone.dictionaries.slices import Slice


@dataclass(frozen=True, eq=False)
class Boost:
    """By how much scores exceed pre-activations: they are multiplied by 1 + |<a_r, w_i>| for row r and latent i.

    rows: (rows, width), the a, or, where there is a length (), what become the a once they are brought to it; weight:
    (latents, width), the w; head: the name that parts know |<a_r, w_i>| by.
    """

    rows: Tensor
    weight: Tensor
    head: str
    length: Tensor | None = None

    @cached_property
    def states(self) -> Tensor:
        """(rows, width), the a."""
        return self.rows if self.length is None else of_length(self.rows, self.length)


@dataclass(frozen=True, eq=False)
class Rule:
    """A nomination as one comparison per place, which a kernel can make while it computes the scores.

    k > 0: the k places of each row with the largest scores; k = 0: all places whose score exceeds `floor`; scores are
    taken less `shift` (latents,) where there is one. hinted: the shift may come from what earlier batches showed, which
    is not saved: pre-activations must not depend on it, not by a bit. boost: what multiplies the (shifted) scores.
    """

    k: int = 0
    floor: float = 0.0
    shift: Tensor | None = None
    hinted: bool = False
    boost: Boost | None = None

    def __post_init__(self) -> None:
        require(self.k >= 0, f"k={self.k} places of each row: use at least 1, or 0 for all above the floor.")


class Selection(Part):
    """Base of the selection slot.

    Selection has two phases, so that the score matrix is never needed as a whole: `nominate` sees some rows at a time
    and returns at least the places that can be active; `settle` sees the nominees of all rows and makes the cut. Where
    rows do not compete, nominees are final. `has_budget`: the number of active latents is bounded beforehand.
    """

    has_budget: bool = False
    narrows: bool = False  # its rule gives more places than it nominates
    rows_compete: bool = False
    latents_compete: bool = False  # whether a latent is active depends on what others score
    slice: Slice | None = None  # where its latents lie; None: it has all
    has_threshold_form: bool = False
    learned: bool = False  # theta is a function of a parameter; values then see it, with its gradient
    theta: Tensor  # where there is a threshold form: () or (latents,), in the score's units
    window: Tensor  # where it is learned: () width of the pseudo-gradient's window, in the score's units

    def start(self, size: Tensor) -> None:
        """Called before training. size: () typical pre-activation of a random unit row, in the dictionary's units."""

    def nominate(self, scores: Tensor, *, company: bool, states: Tensor | None = None) -> Support:
        """Places of (rows, latents) scores that can be active. `company`: rows compete as in training; without it the
        inference form applies, in which each row stands alone. states: (rows, width) less the centre, in the
        dictionary's units."""
        raise NotImplementedError

    def rule(self, sample: Callable[[], Tensor], states: Tensor) -> Rule | None:
        """What `nominate` does in company, as a rule; None where it cannot be said so, which is always correct. A class
        that overrides `nominate` must override this. sample: scores of a few of the rows; states: these rows, as in
        `nominate`."""
        return None

    def alone(self) -> Rule | None:
        """What `nominate` does without company, as a rule; None as for `rule`."""
        return None

    def narrow(self, nominees: Support, scores: Tensor, states: Tensor) -> Tensor | None:
        """(n,) mask of what `nominate` would have kept of the places that the rule gave, where `narrows`; states: all
        rows; None asks for a wider rule."""
        raise NotImplementedError

    def mask(self, scores: Tensor) -> Tensor:
        """Boolean (rows, latents): the active places, for selections without a budget, which may be many."""
        raise NotImplementedError

    def settle(self, nominees: Support, scores: Tensor) -> Tensor | None:
        """(n,) mask of the nominees that are active in company, given their scores; None asks for a wider
        nomination."""
        raise NotImplementedError

    def confer(self, sample: Callable[[], Tensor], states: Tensor) -> None:
        """Called before each nomination where this is a slice of the latents: all slices may agree on how much to
        nominate. sample: scores of a few of the rows; states: these rows, as in `nominate`."""

    def unite(self, nominees: Support, scores: Tensor, states: Tensor) -> Tensor | None:
        """(n,) mask of the nominees that are active, where slices of the latents were nominated each by itself; None
        asks for a wider nomination. states: all rows. Where `latents_compete`, a `sliceable` selection has it; nominees
        of each row are ordered by slices. Where they do not, `settle` makes the cut within the slice."""
        raise NotImplementedError

    def widen(self) -> None:
        """Nominate generously from now on (after `settle` returned None)."""

    def check(self, n_latents: int) -> None:
        """Raise SettingError if this selection makes no sense with so many latents."""
