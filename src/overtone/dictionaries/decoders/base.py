"""The decoder slot: from codes to a reconstruction."""

from torch import Tensor

from overtone.dictionaries.codes import SparseCodes
from overtone.dictionaries.parts import Part


class Decoder(Part):
    """Base of the decoder slot. `linear`: a reconstruction is the sum of the active atoms plus a constant. `widths`: of
    views that lie beside each other, where there are several."""

    linear: bool = False
    needs_input: bool = False
    frozen: bool = False
    widths: tuple[int, ...] = ()

    def forward(self, codes: SparseCodes, x: Tensor | None = None) -> Tensor:
        """(rows, width) reconstruction in the dictionary's units. Differentiable in codes and weights. x: the encoded
        states in the dictionary's units, where `needs_input`."""
        raise NotImplementedError

    def start(self, x: Tensor, target: Tensor) -> None:
        """Called before training, after the constant was set to the mean target. x, target: (rows, width), (rows,
        width_out) first states and what is to be reconstructed, in the dictionary's units."""

    def constant(self, x: Tensor | None = None) -> Tensor:
        """(width,) or (rows, width) part of the reconstruction that does not depend on the code."""
        return self.centre()

    def centre(self) -> Tensor:
        """(width,) constant part of the reconstruction."""
        raise NotImplementedError

    def rows(self) -> Tensor:
        """(latents, width) what each latent adds; for linear decoders."""
        raise NotImplementedError

    def norms(self) -> Tensor:
        """(latents,) lengths of the rows; penalties and exports use this, so that a decoder may define its own."""
        return self.rows().norm(dim=1)
