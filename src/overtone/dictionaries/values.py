"""Values: what a selected latent is worth. Elementwise in the heads, differentiable.

Beside the encoder's heads a value finds `theta`, the selection's threshold with its gradient, and `window`, the width
in which that gradient lives, where the threshold is learned, and whatever its `sides` drew.
"""

from torch import Tensor

from overtone.dictionaries.encoders.base import At, Heads
from overtone.dictionaries.jumps import jump
from overtone.dictionaries.parts import Part
from overtone.dictionaries.slices import Slice


class Value(Part):
    """Base of the value slot. `signed`: values may be negative."""

    signed: bool = False
    draws: bool = False  # random numbers while training
    slice: Slice | None = None  # where its latents lie; None: it has all

    def sides(self, first: int, n_rows: int, n_latents: int) -> Heads:
        """Further (rows, latents) heads, without gradients, for n_rows rows of a training batch from row `first` on,
        such as noise. They must not depend on how a batch is cut into blocks, nor on how often it is asked for."""
        return {}

    def forward(self, heads: Heads, at: At) -> Tensor:
        """Values in the shape of the heads; `at` brings a (latents,) vector into that shape."""
        raise NotImplementedError


class Rectified(Value, kind="value.rectified"):
    """The positive part of the pre-activation."""

    sliceable = True

    def forward(self, heads: Heads, at: At) -> Tensor:
        """max(u, 0)."""
        return heads["u"].relu()


class Signed(Value, kind="value.signed"):
    """The pre-activation with its sign."""

    signed = True
    sliceable = True

    def forward(self, heads: Heads, at: At) -> Tensor:
        """u."""
        return heads["u"]


class GatedMagnitude(Value, kind="value.gated_magnitude"):
    """The positive part of the encoder's second head. Source: Gated SAE, arXiv 2404.16014."""

    sliceable = True

    def forward(self, heads: Heads, at: At) -> Tensor:
        """max(magnitude, 0)."""
        return heads["magnitude"].relu()


class Jump(Value, kind="value.jump"):
    """The pre-activation where it exceeds the learned threshold, with a pseudo-gradient for the threshold inside
    `window`. Source: JumpReLU, arXiv 2407.14435."""

    sliceable = True

    def forward(self, heads: Heads, at: At) -> Tensor:
        """u H(u - theta)."""
        return jump(heads["u"], heads["theta"], heads["window"])
