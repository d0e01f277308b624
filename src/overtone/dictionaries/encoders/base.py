"""The encoder slot: from a state to pre-activations, by one matrix and elementwise functions of the product."""

from collections.abc import Callable

from torch import Tensor

from overtone.dictionaries.codes import Support
from overtone.dictionaries.decoders.base import Decoder
from overtone.dictionaries.parts import Part

Heads = dict[str, Tensor]
"""Named pre-activations of equal shape, at least `u`."""
At = Callable[[Tensor], Tensor]
"""Brings a (latents,) vector into the shape of the heads: all latents of each row, or the places of a support."""


class Encoder(Part):
    """Base of the encoder slot.

    The work is split so that a training step needs one dense product: `affine` gives the matrix, selection sees all
    pre-activations without gradients, and only the selected ones are computed again with gradients. `unrolled`: it
    chooses by itself, in several steps on what is left of the state (`pursue`, `replay`).
    """

    unrolled: bool = False

    def width(self, decoder: Decoder) -> int:
        """Width of the states it reads."""
        return self.affine(decoder)[0].shape[1]

    def affine(self, decoder: Decoder) -> tuple[Tensor, Tensor]:
        """(latents, width) matrix and (latents,) bias of the pre-activations; the decoder is there for tied
        encoders."""
        raise NotImplementedError

    def subtract(self, centre: Tensor) -> None:
        """Change the bias in place so that a state equal to `centre` (width,) has the pre-activations that 0 had."""
        raise NotImplementedError

    def heads(self, u: Tensor, at: At) -> Heads:
        """The heads that belong to affine pre-activations `u`, elementwise."""
        raise NotImplementedError

    def pursue(self, centred: Tensor, decoder: Decoder) -> tuple[Support, Tensor]:
        """For unrolled encoders: the places chosen in each row, in the order of the steps, and the pre-activations (n,)
        with which a code is made of them. A latent chosen twice has all of it in its first place."""
        raise NotImplementedError

    def replay(self, centred: Tensor, decoder: Decoder, support: Support) -> Tensor:
        """For unrolled encoders: the pre-activations (n,) of each step at chosen places, with gradients."""
        raise NotImplementedError

    def dense_heads(self, centred: Tensor) -> Heads:
        """Further (rows, latents) heads that need products of their own, with gradients; only dense passes of training
        compute them (objectives with `needs_all`)."""
        return {}
