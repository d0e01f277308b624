"""The decoder's rows, each with a factor of its own."""

import torch
from torch import Tensor, nn

from overtone.dictionaries.decoders.base import Decoder
from overtone.dictionaries.encoders.base import At, Encoder, Heads


class Tied(Encoder, kind="encoder.tied"):
    """u_i = a_i <d_i, x> + b_i with d_i the decoder's row i, a (latents,) factors, trained if `scaled` and else 1, and
    b a constant of zeros, which training leaves alone. Gradients reach the rows from both sides."""

    per_latent = ("scale", "bias")
    sliceable = True
    bias: Tensor

    def __init__(self, n_latents: int, *, scaled: bool = False) -> None:
        super().__init__()
        self.scaled = scaled
        self.scale = nn.Parameter(torch.ones(n_latents), requires_grad=scaled)
        self.register_buffer("bias", torch.zeros(n_latents))

    def arguments(self) -> dict[str, int | bool]:
        """n_latents and scaled."""
        return {"n_latents": self.scale.shape[0], "scaled": self.scaled}

    def affine(self, decoder: Decoder) -> tuple[Tensor, Tensor]:
        """The decoder's rows times the factors, and the constant."""
        rows = decoder.rows()
        return self.scale.unsqueeze(1) * rows if self.scaled else rows, self.bias

    def subtract(self, centre: Tensor) -> None:
        """Refused: a tied encoder has no bias to absorb a centre."""
        raise NotImplementedError("a tied encoder belongs to a centred dictionary")

    def heads(self, u: Tensor, at: At) -> Heads:
        """One head."""
        return {"u": u}

    def scale_codes(self, factor: float) -> None:
        """Scale the constant: u is homogeneous in the state and the constant."""
        self.bias.mul_(factor)

    def scale_latents(self, factors: Tensor) -> None:
        """Scale each latent's factor and constant; the decoder's row, which is divided, is in the product too."""
        self.scale.data.mul_(factors.square())
        self.bias.mul_(factors)
        self.scaled = True
