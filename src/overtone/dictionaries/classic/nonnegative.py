"""Dictionaries whose codes are solved for: non-negative combinations of given rows."""

from typing import Any, ClassVar

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import normalize

from overtone.dictionaries.codes import SparseCodes
from overtone.dictionaries.dictionary import Capabilities, Dictionary
from overtone.dictionaries.solvers.nonnegative import nonnegative_least_squares

BLOCK_ROWS = 1024  # with a hundred latents, what fits into a cache


class NonNegative(Dictionary, kind="dictionary.non_negative"):
    """x ~ z W + offset, where z >= 0 is the non-negative least squares solution for the state. There is no encoder: the
    code is the best one for these rows W, whatever matrix they were fitted on."""

    CAN: ClassVar = Capabilities(has_preactivations=False, has_encoder_matrix=False, foldable=False)
    weight: Tensor
    offset: Tensor

    def __init__(self, width: int, n_latents: int) -> None:
        super().__init__(width, n_latents)
        self.register_buffer("weight", torch.zeros(n_latents, width))
        self.register_buffer("offset", torch.zeros(width))

    @classmethod
    def of(cls, weight: Float[Tensor, "latents width"], offset: Float[Tensor, " width"] | None = None) -> "NonNegative":
        """The dictionary of given rows (of length 1 afterwards: codes carry the size) and a constant."""
        made = cls(weight.shape[1], weight.shape[0])
        made.weight.copy_(normalize(weight, dim=1))
        if offset is not None:
            made.offset.copy_(offset)
        return made.eval()

    def arguments(self) -> dict[str, Any]:
        """width and n_latents."""
        return {"width": self.width, "n_latents": self.n_latents}

    @property
    def capabilities(self) -> Capabilities:
        """Codes are solved for: no pre-activations and no encoder."""
        return self.CAN

    @torch.no_grad()
    def encode(self, x: Float[Tensor, "rows width"]) -> SparseCodes:
        """The non-negative codes of least error; how many are active follows from the state."""
        weight = self.weight.double()
        gram, centred = weight @ weight.T, self.checked(x).double() - self.offset.double()
        found = [nonnegative_least_squares(gram, rows @ weight.T) for rows in centred.split(BLOCK_ROWS)]
        return SparseCodes.from_dense(torch.cat(found).to(torch.promote_types(self.weight.dtype, torch.float32)))

    def decode(self, codes: SparseCodes, x: Tensor | None = None) -> Float[Tensor, "rows width"]:
        """The sum of the active rows and the constant."""
        codes = self.checked_codes(codes)
        return codes.dense().to(self.weight.dtype) @ self.weight + self.offset

    def atoms(self) -> Float[Tensor, "latents width"]:
        """The rows, which are unit vectors (zero where a row is)."""
        return self.weight
