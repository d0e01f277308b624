"""A linear decoder of several views that lie beside each other."""

from collections.abc import Sequence

import torch
from torch import Tensor

from overtone.core.errors import ShapeError
from overtone.dictionaries.codes import SparseCodes
from overtone.dictionaries.decoders.base import Decoder


class Blocks(Decoder, kind="decoder.blocks"):
    """The inner decoder's reconstruction, where a row's length is the sum over views of the lengths of its blocks.

    widths of the views add up to the inner decoder's. `importance` (views,): factors of the lengths; folding changes
    them, so that lengths mean the same afterwards. Source: Anthropic's crosscoders, October 2024. Raises ShapeError if
    the widths do not add up.
    """

    sliceable = True
    importance: Tensor

    def __init__(self, inner: Decoder, widths: Sequence[int]) -> None:
        super().__init__()
        self.inner, self.widths = inner, tuple(widths)
        self.linear, self.needs_input, self.frozen = inner.linear, inner.needs_input, inner.frozen
        total = inner.centre().shape[0]
        if sum(self.widths) != total:
            raise ShapeError(f"views of widths {self.widths} do not make {total}: give widths that add up to it.")
        self.register_buffer("importance", torch.ones(len(self.widths)))

    def arguments(self) -> dict[str, object]:
        """The inner decoder's spec and the widths."""
        return {"inner": self.inner.spec(), "widths": list(self.widths)}

    def block_norms(self) -> Tensor:
        """(latents, views) lengths of each row's blocks."""
        blocks = self.rows().split(self.widths, 1)
        return torch.stack([block.norm(dim=1) for block in blocks], 1) * self.importance

    def norms(self) -> Tensor:
        """(latents,) sums of the blocks' lengths."""
        return self.block_norms().sum(1)

    def forward(self, codes: SparseCodes, x: Tensor | None = None) -> Tensor:
        """The inner reconstruction."""
        return self.inner(codes, x)

    def constant(self, x: Tensor | None = None) -> Tensor:
        """The inner constant."""
        return self.inner.constant(x)

    def centre(self) -> Tensor:
        """The inner constant."""
        return self.inner.centre()

    def rows(self) -> Tensor:
        """The inner rows."""
        return self.inner.rows()

    def scale_codes(self, factor: float) -> None:
        """Scale the inner decoder."""
        self.inner.scale_codes(factor)

    def scale_input(self, factor: Tensor | float) -> None:
        """Scale the inner decoder."""
        self.inner.scale_input(factor)

    def scale_output(self, factor: Tensor | float) -> None:
        """Scale the inner decoder, and keep the lengths' meaning."""
        self.inner.scale_output(factor)
        if isinstance(factor, Tensor):
            self.importance.div_(torch.stack([part[0] for part in factor.split(self.widths)]))

    def scale_latents(self, factors: Tensor) -> None:
        """Divide each latent's inner row."""
        self.inner.scale_latents(factors)
