"""A polynomial of low rank in the code: latents that are active together may add a direction of their own."""

from functools import reduce
from math import factorial

import torch
from jaxtyping import Float
from torch import Tensor, nn

from overtone.core.settings import require
from overtone.dictionaries.codes import SparseCodes
from overtone.dictionaries.decoders.base import Decoder
from overtone.dictionaries.decoders.linear import weighted_sum


class Polynomial(Decoder, kind="decoder.polynomial"):
    """a = z U; x_hat = b + a C1 + l2 (a[:R2])^2 C2 + l3 (a[:R3])^3 C3, powers elementwise.

    U: `mix` (latents, rank), kept orthonormal in its columns by a maintainer; C1, C2, C3: `first` (rank, width),
    `second` (R2, width), `third` (R3, width); l2, l3: `weights` (2,); b: `bias`. Latent i alone adds row i of U C1 and
    self terms; i and j together add 2 l2 z_i z_j sum_r U_ir U_jr C2_r, and cubic terms. Source: PolySAE, arXiv
    2602.01322. Raises SettingError for ranks that do not fit.
    """

    per_latent = ("mix",)
    indivisible = "powers are of sums over all latents, not sums over them"

    def __init__(self, width: int, n_latents: int, *, rank: int, square: int, cube: int) -> None:
        super().__init__()
        most = min(width, n_latents)
        require(
            1 <= rank <= most and 0 <= square <= rank and 0 <= cube <= rank,
            f"rank={rank}, square={square}, cube={cube}: use a rank in 1..{most} and 0..rank for the powers.",
        )
        self.mix = nn.Parameter(torch.zeros(n_latents, rank))
        self.first = nn.Parameter(torch.zeros(rank, width))
        self.second = nn.Parameter(torch.zeros(square, width))
        self.third = nn.Parameter(torch.zeros(cube, width))
        self.weights = nn.Parameter(torch.tensor([-0.5, 0.5]))
        self.bias = nn.Parameter(torch.zeros(width))

    def arguments(self) -> dict[str, int]:
        """width, n_latents and the three ranks."""
        n_latents, rank = self.mix.shape
        width, square, cube = self.first.shape[1], len(self.second), len(self.third)
        return {"width": width, "n_latents": n_latents, "rank": rank, "square": square, "cube": cube}

    @torch.no_grad()
    def initialise(self, rows: Float[Tensor, "latents width"], generator: torch.Generator) -> None:
        """Choose U and C1 such that U C1 comes nearest to given rows (and is equal to them at full rank); the powers'
        matrices are uniform within 1 / sqrt(their rank)."""
        rank = self.mix.shape[1]
        left, sizes, right = torch.linalg.svd(rows, full_matrices=False)
        turn = torch.linalg.qr(torch.randn(rank, rank, generator=generator)).Q  # no direction is special to the powers
        self.mix.copy_(left[:, :rank] @ turn)
        self.first.copy_(turn.T @ (sizes[:rank, None] * right[:rank]))
        for matrix in (self.second, self.third):
            if len(matrix):
                matrix.copy_((2 * torch.rand(matrix.shape, generator=generator) - 1) / len(matrix) ** 0.5)

    def forward(self, codes: SparseCodes, x: Tensor | None = None) -> Tensor:
        """The polynomial."""
        a = weighted_sum(codes, self.mix)
        x_hat = torch.addmm(self.bias, a, self.first)
        if len(self.second):
            x_hat = x_hat + self.weights[0] * (a[:, : len(self.second)].square() @ self.second)
        if len(self.third):
            x_hat = x_hat + self.weights[1] * (a[:, : len(self.third)].pow(3) @ self.third)
        return x_hat

    def centre(self) -> Tensor:
        """The constant."""
        return self.bias

    def rows(self) -> Tensor:
        """(latents, width) linear part, U C1."""
        return self.mix @ self.first

    def bindings(self, *latents: Tensor) -> Float[Tensor, "sets width"]:
        """What the product of two or three different latents' values is multiplied with, 2 l2 sum_r U_ir U_jr C2_r or
        6 l3 sum_r U_ir U_jr U_kr C3_r, for sets of latents given as two or three (sets,) index tensors."""
        n = len(latents)
        matrix = self.second if n == 2 else self.third
        mix = self.mix[:, : len(matrix)]
        products = reduce(torch.mul, (mix[some] for some in latents))
        return factorial(n) * self.weights[n - 2] * (products @ matrix)

    def scale_codes(self, factor: float) -> None:
        """Scale the constant; a power n of the code must shrink by factor^(n - 1)."""
        self.bias.data.mul_(factor)
        self.second.data.div_(factor)
        self.third.data.div_(factor**2)
