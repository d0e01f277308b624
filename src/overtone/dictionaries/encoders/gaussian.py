"""A mean and a log-variance for each latent."""

import torch
from torch import Tensor, nn
from torch.nn.functional import linear

from overtone.dictionaries.decoders.base import Decoder
from overtone.dictionaries.encoders.base import At, Encoder, Heads

LOWEST, HIGHEST = -6.0, 2.0  # log-variances are kept between them
AT_FIRST = -2.0


class Gaussian(Encoder, kind="encoder.gaussian"):
    """u = x W^T + b, and in dense passes of training `logvar`, log sigma^2 = clamp(x V^T + c, -6, 2), V (latents,
    width). Source: vSAE, arXiv 2509.22994."""

    per_latent = ("weight", "bias", "spread_weight", "spread_bias")
    sliceable = True
    unit: Tensor

    def __init__(self, width: int, n_latents: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(n_latents, width))
        self.bias = nn.Parameter(torch.zeros(n_latents))
        self.spread_weight = nn.Parameter(torch.zeros(n_latents, width))
        self.spread_bias = nn.Parameter(torch.full((n_latents,), AT_FIRST))
        self.register_buffer("unit", torch.ones(()))  # of the codes; folding changes it

    def arguments(self) -> dict[str, int]:
        """width and n_latents."""
        return {"width": self.weight.shape[1], "n_latents": self.weight.shape[0]}

    def affine(self, decoder: Decoder) -> tuple[Tensor, Tensor]:
        """Matrix and bias of the mean."""
        return self.weight, self.bias

    def subtract(self, centre: Tensor) -> None:
        """Take the centre's product off both biases."""
        self.bias.data.sub_(self.weight.data @ centre)
        self.spread_bias.data.sub_(self.spread_weight.data @ centre)

    def heads(self, u: Tensor, at: At) -> Heads:
        """The mean's head."""
        return {"u": u}

    def dense_heads(self, centred: Tensor) -> Heads:
        """Log-variances of all latents."""
        logvar = linear(centred, self.spread_weight, self.spread_bias).clamp(LOWEST, HIGHEST)
        return {"logvar": logvar + 2 * self.unit.log()}

    def scale_codes(self, factor: float) -> None:
        """Scale the mean's bias and the unit of the standard deviation."""
        self.bias.data.mul_(factor)
        self.spread_weight.data.div_(factor)
        self.unit.mul_(factor)
