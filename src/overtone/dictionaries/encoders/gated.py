"""Two heads on one matrix: which latents are active, and how much they are worth."""

import torch
from torch import Tensor, nn

from overtone.dictionaries.decoders.base import Decoder
from overtone.dictionaries.encoders.base import At, Encoder, Heads


class Gated(Encoder, kind="encoder.gated"):
    """u = x W^T + b decides (the gate); magnitude = exp(r) (x W^T) + b_mag is what an active latent is worth.

    W (latents, width); b, r, b_mag (latents,), all start at 0. Source: Rajamanoharan et al. 2024, arXiv 2404.16014.
    """

    per_latent = ("weight", "bias", "log_gain", "magnitude_bias")
    sliceable = True

    def __init__(self, width: int, n_latents: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(n_latents, width))
        self.bias, self.log_gain, self.magnitude_bias = (nn.Parameter(torch.zeros(n_latents)) for _ in range(3))

    def arguments(self) -> dict[str, int]:
        """width and n_latents."""
        return {"width": self.weight.shape[1], "n_latents": self.weight.shape[0]}

    def affine(self, decoder: Decoder) -> tuple[Tensor, Tensor]:
        """The matrix and the gate's bias."""
        return self.weight, self.bias

    def subtract(self, centre: Tensor) -> None:
        """Take the centre's product off both biases."""
        product = self.weight.data @ centre
        self.bias.data.sub_(product)
        self.magnitude_bias.data.sub_(self.log_gain.data.exp() * product)

    def heads(self, u: Tensor, at: At) -> Heads:
        """The gate `u` and the `magnitude`."""
        return {"u": u, "magnitude": at(self.log_gain).exp() * (u - at(self.bias)) + at(self.magnitude_bias)}

    def thresholds(self) -> Tensor:
        """(latents,) theta = b_mag - exp(r) b: where it is not negative, the latent is a JumpReLU of its magnitude with
        this threshold."""
        return self.magnitude_bias - self.log_gain.exp() * self.bias

    def scale_codes(self, factor: float) -> None:
        """Scale both biases."""
        self.bias.data.mul_(factor)
        self.magnitude_bias.data.mul_(factor)

    def scale_latents(self, factors: Tensor) -> None:
        """Scale each latent's row and biases."""
        self.weight.data.mul_(factors.unsqueeze(1))
        self.bias.data.mul_(factors)
        self.magnitude_bias.data.mul_(factors)

    def scale_input(self, factor: Tensor | float) -> None:
        """Scale the matrix."""
        self.weight.data.mul_(factor)
