"""A matrix and a bias of its own."""

import torch
from torch import Tensor, nn

from overtone.dictionaries.decoders.base import Decoder
from overtone.dictionaries.encoders.base import At, Encoder, Heads


class Linear(Encoder, kind="encoder.linear"):
    """u = x W^T + b with W (latents, width), stored like the decoder: row i belongs to latent i."""

    per_latent = ("weight", "bias")
    sliceable = True

    def __init__(self, width: int, n_latents: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(n_latents, width))
        self.bias = nn.Parameter(torch.zeros(n_latents))

    def arguments(self) -> dict[str, int]:
        """width and n_latents."""
        return {"width": self.weight.shape[1], "n_latents": self.weight.shape[0]}

    def affine(self, decoder: Decoder) -> tuple[Tensor, Tensor]:
        """Its own matrix and bias."""
        return self.weight, self.bias

    def subtract(self, centre: Tensor) -> None:
        """Take the centre's product off the bias."""
        self.bias.data.sub_(self.weight.data @ centre)

    def heads(self, u: Tensor, at: At) -> Heads:
        """One head."""
        return {"u": u}

    def scale_codes(self, factor: float) -> None:
        """Scale the bias: u is homogeneous in the state and the bias."""
        self.bias.data.mul_(factor)

    def scale_input(self, factor: Tensor | float) -> None:
        """Scale the matrix."""
        self.weight.data.mul_(factor)

    def scale_latents(self, factors: Tensor) -> None:
        """Scale each latent's row and bias."""
        self.weight.data.mul_(factors.unsqueeze(1))
        self.bias.data.mul_(factors)
