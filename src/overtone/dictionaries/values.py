"""Values: what a selected latent is worth. Elementwise in the encoder's heads, differentiable."""

from torch import Tensor

from overtone.dictionaries.encoders.base import At, Heads
from overtone.dictionaries.parts import Part


class Value(Part):
    """Base of the value slot. `signed`: values may be negative."""

    signed: bool = False

    def forward(self, heads: Heads, at: At) -> Tensor:
        """Values in the shape of the heads; `at` brings a (latents,) vector into that shape."""
        raise NotImplementedError


class Rectified(Value, kind="value.rectified"):
    """The positive part of the pre-activation."""

    def forward(self, heads: Heads, at: At) -> Tensor:
        """max(u, 0)."""
        return heads["u"].relu()


class Signed(Value, kind="value.signed"):
    """The pre-activation with its sign."""

    signed = True

    def forward(self, heads: Heads, at: At) -> Tensor:
        """u."""
        return heads["u"]
