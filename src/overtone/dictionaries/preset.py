"""Presets: a method as frozen settings that know how to build and train its dictionary.

A preset file names the paper, states the formula and wires parts. `@preset(NAME, paper=...)` enters it in the catalogue
together with its knobs and the capabilities of what it builds.
"""

from collections.abc import Callable, Mapping
from dataclasses import MISSING, dataclass, fields
from typing import Any, ClassVar, TypeVar

import torch
from jaxtyping import Float
from torch import Tensor

from overtone.core.batch import Where
from overtone.core.catalogue import enrol
from overtone.core.settings import Settings, require
from overtone.dictionaries.dictionary import Capabilities, Dictionary
from overtone.dictionaries.knobs import check_knobs
from overtone.dictionaries.maintainers.base import Maintainer
from overtone.dictionaries.objectives.base import Objective

_Class = TypeVar("_Class", bound=type["Preset"])


@dataclass(frozen=True)
class Preset(Settings):
    """Base of all presets. n_latents: atoms of the dictionary.

    `whole`: fitted on a matrix in memory (`fitted`) instead of by gradient steps over batches (`build`, `objectives`,
    `maintainers`). `needs`: what training takes beside the states: "y" for targets (`Job.target`), "g" for gradients of
    a loss with respect to the states (`ActivationBatch.g`), "where" for the origin of each row (`fitted_at`). `window`:
    tokens without firing after which a latent counts as dead. `basis`: atoms are independent, so there are at most as
    many as the states are wide. `least`: knob -> least value, where that is not 1 for whole numbers and 0 for others;
    every knob is also of its type and finite (`check_knobs`). `several`: reads the states of several sites.
    """

    n_latents: int
    name: ClassVar[str] = ""
    whole: ClassVar[bool] = False
    needs: ClassVar[frozenset[str]] = frozenset()
    basis: ClassVar[bool] = False
    several: ClassVar[bool] = False
    least: ClassVar[Mapping[str, float]] = {}

    def __post_init__(self) -> None:
        check_knobs(self, self.least)
        k, target = getattr(self, "k", None), getattr(self, "target_l0", None)
        require(
            k is None or k <= self.n_latents,
            f"k={k} active latents per row, but there are only {self.n_latents}. Use a smaller k or more latents.",
        )
        require(
            target is None or 0 < target <= self.n_latents,
            f"target_l0={target} active latents per row: use more than 0 and at most n_latents, {self.n_latents}.",
        )

    def of_views(self, widths: tuple[int, ...]) -> "Preset":
        """The settings for states of several sites beside each other, of these widths: those of a crosscoder follow."""
        return self

    def build(self, width: int, generator: torch.Generator) -> Dictionary:
        """An untrained dictionary for states of a width, in eval mode. Presets that need "y" also take `width_out`, the
        width of the targets."""
        raise NotImplementedError

    def fitted(self, rows: Float[Tensor, "rows width"], generator: torch.Generator) -> Dictionary:
        """The dictionary of a matrix of states, for presets that are fitted as a whole."""
        raise NotImplementedError

    def fitted_at(self, rows: Float[Tensor, "rows width"], where: Where, generator: torch.Generator) -> Dictionary:
        """`fitted` for presets that need "where": they are told where each row comes from."""
        raise NotImplementedError

    def objectives(self) -> tuple[Objective, ...]:
        """The terms of the training loss."""
        raise NotImplementedError

    def maintainers(self) -> tuple[Maintainer, ...]:
        """What runs around the updates, new objects at each call."""
        return ()

    @property
    def window(self) -> int:
        """Tokens without firing after which a latent counts as dead: 500 times the tokens between two firings of an
        average latent, at least 10 000."""
        return max(10_000, int(500 * self.n_latents / (getattr(self, "k", None) or 16)))

    @property
    def rate(self) -> float:
        """Default learning rate for Adam: 2e-4 sqrt(2^14 / n_latents), at most 2e-3 (the law of Gao et al. 2024)."""
        return min(2e-3, 2e-4 * (2**14 / self.n_latents) ** 0.5)

    @property
    def betas(self) -> tuple[float, float]:
        """Adam's decay rates of the gradient's mean and square."""
        return 0.9, 0.999

    @classmethod
    def example(cls, n_latents: int, k: int) -> "Preset":
        """Settings with so many latents and, where there is such a knob, k active ones; the rest as by default."""
        known = {f.name for f in fields(cls)}
        return cls.from_dict({key: v for key, v in {"n_latents": n_latents, "k": k}.items() if key in known})


def preset(
    name: str, *, paper: str = "", capabilities: Capabilities | None = None, **facts: Any
) -> Callable[[_Class], _Class]:
    """Decorator that enrols a preset class in the catalogue with its paper, knobs and capabilities.

    Knobs are name -> default, null where a value must be given. capabilities None: those of a tiny dictionary that is
    built for the purpose. Further facts are kept; `recovers=True` claims planted recovery, which the tests then check.
    """

    def add(thing: _Class) -> _Class:
        thing.name = name
        knobs = {f.name: None if f.default is MISSING else f.default for f in fields(thing)}
        can = (capabilities or _capabilities(thing)).to_dict()
        return enrol("dictionaries", name, paper=paper, knobs=knobs, capabilities=can, **facts)(thing)

    return add


def _capabilities(thing: type[Preset]) -> Capabilities:
    """The flags of a tiny dictionary of the preset."""
    generator = torch.Generator().manual_seed(0)
    small = thing.example(n_latents=2, k=1)
    rows = torch.randn(8, 2, generator=generator)
    made = small.fitted(rows, generator) if thing.whole else small.build(2, generator)
    return made.capabilities
