"""One row per latent and a constant."""

import torch
from torch import Tensor, nn
from torch.nn.functional import embedding_bag

from overtone.dictionaries.codes import SparseCodes
from overtone.dictionaries.decoders.base import Decoder

DENSE_FROM = 8  # with more than 1/8 of the latents active a dense product is faster than gathering rows


class Linear(Decoder, kind="decoder.linear"):
    """x_hat = z W + b with W (latents, width). `frozen`: W is not trained."""

    linear = True
    per_latent = ("weight",)
    sliceable = True

    def __init__(self, width: int, n_latents: int, *, frozen: bool = False) -> None:
        super().__init__()
        self.frozen = frozen
        self.weight = nn.Parameter(torch.zeros(n_latents, width), requires_grad=not frozen)
        self.bias = nn.Parameter(torch.zeros(width))

    def arguments(self) -> dict[str, int | bool]:
        """width, n_latents and frozen."""
        n_latents, width = self.weight.shape
        return {"width": width, "n_latents": n_latents, "frozen": self.frozen}

    def forward(self, codes: SparseCodes, x: Tensor | None = None) -> Tensor:
        """Sum of the active rows plus the constant."""
        return weighted_sum(codes, self.weight) + self.bias

    def centre(self) -> Tensor:
        """The constant."""
        return self.bias

    def rows(self) -> Tensor:
        """The matrix."""
        return self.weight

    def scale_codes(self, factor: float) -> None:
        """Scale the constant; the rows stay, since codes carry the scale."""
        self.bias.data.mul_(factor)

    def scale_output(self, factor: Tensor | float) -> None:
        """Scale rows and constant."""
        self.weight.data.mul_(factor)
        self.bias.data.mul_(factor)

    def scale_latents(self, factors: Tensor) -> None:
        """Divide each latent's row."""
        self.weight.data.div_(factors.unsqueeze(1))


def weighted_sum(codes: SparseCodes, weight: Tensor) -> Tensor:
    """(rows, width) product of codes with a (latents, width) matrix, in whichever way is faster. Differentiable."""
    values = codes.values.to(weight.dtype)
    slots = codes.values.shape[1]
    if not slots or slots * DENSE_FROM > codes.n_latents:
        return SparseCodes(values, codes.indices, codes.n_latents).dense() @ weight
    return embedding_bag(codes.indices, weight, per_sample_weights=values, mode="sum")
