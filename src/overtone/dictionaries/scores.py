"""Scores: by what latents compete to be selected. Elementwise in the encoder's heads; no gradient flows through
them."""

from torch import Tensor

from overtone.dictionaries.encoders.base import At, Heads
from overtone.dictionaries.parts import Part


class Score(Part):
    """Base of the score slot. `two_sided`: the score ignores the sign of the pre-activation."""

    two_sided: bool = False

    def forward(self, heads: Heads, at: At) -> Tensor:
        """Scores in the shape of the heads; `at` brings a (latents,) vector into that shape."""
        raise NotImplementedError


class PreActivation(Score, kind="score.preactivation"):
    """The pre-activation itself."""

    def forward(self, heads: Heads, at: At) -> Tensor:
        """u."""
        return heads["u"]


class Magnitude(Score, kind="score.magnitude"):
    """The magnitude of the pre-activation, so that both signs compete. Source: AbsTopK, arXiv 2510.00404."""

    two_sided = True

    def forward(self, heads: Heads, at: At) -> Tensor:
        """|u|."""
        return heads["u"].abs()
