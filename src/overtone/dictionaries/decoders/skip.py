"""A straight way from the encoded states to the predicted ones, beside the code."""

import torch
from torch import Tensor, nn

from overtone.dictionaries.codes import SparseCodes
from overtone.dictionaries.decoders.base import Decoder


class Skip(Decoder, kind="decoder.skip"):
    """x_hat = inner(z) + x W^T with W (width_out, width). Source: arXiv 2501.18823."""

    needs_input = True
    sliceable = True

    def __init__(self, inner: Decoder, width: int) -> None:
        super().__init__()
        self.inner, self.linear, self.frozen = inner, inner.linear, inner.frozen
        self.weight = nn.Parameter(torch.zeros(inner.centre().shape[0], width))

    def arguments(self) -> dict[str, object]:
        """The inner decoder's spec and width."""
        return {"inner": self.inner.spec(), "width": self.weight.shape[1]}

    @torch.no_grad()
    def start(self, x: Tensor, target: Tensor) -> None:
        """Set W to the linear map that predicts the targets best (with a ridge of 0.1 % of the mean variance), so that
        the code starts on what is left."""
        x, target = x.double(), target.double()
        inputs, wanted = x - x.mean(0), target - target.mean(0)
        square = inputs.T @ inputs
        ridge = 1e-3 * square.diagonal().mean() * torch.eye(len(square), dtype=square.dtype, device=square.device)
        self.weight.copy_(torch.linalg.solve(square + ridge, inputs.T @ wanted).T)
        self.inner.centre().sub_(self.weight @ x.mean(0).to(self.weight.dtype))

    def forward(self, codes: SparseCodes, x: Tensor | None = None) -> Tensor:
        """The inner reconstruction and the straight way's."""
        assert x is not None
        return self.inner(codes, x) + x @ self.weight.T

    def constant(self, x: Tensor | None = None) -> Tensor:
        """(rows, width_out) what needs no code."""
        assert x is not None
        return self.inner.constant(x) + x @ self.weight.T

    def centre(self) -> Tensor:
        """The inner constant."""
        return self.inner.centre()

    def rows(self) -> Tensor:
        """The inner rows."""
        return self.inner.rows()

    def norms(self) -> Tensor:
        """The inner rows' lengths."""
        return self.inner.norms()

    def scale_codes(self, factor: float) -> None:
        """Scale the inner constant."""
        self.inner.scale_codes(factor)

    def scale_input(self, factor: Tensor | float) -> None:
        """Scale the straight way."""
        self.inner.scale_input(factor)
        self.weight.data.mul_(factor)

    def scale_output(self, factor: Tensor | float) -> None:
        """Scale what comes out at each coordinate."""
        self.inner.scale_output(factor)
        self.weight.data.mul_(factor.reshape(-1, 1) if isinstance(factor, Tensor) else factor)

    def scale_latents(self, factors: Tensor) -> None:
        """Divide each latent's inner row."""
        self.inner.scale_latents(factors)
