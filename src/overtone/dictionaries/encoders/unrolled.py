"""Matching pursuit on the decoder's own rows, unrolled so that training can differentiate it.

Source: MP-SAE, arXiv 2506.03093. r_1 = x - c; at step t the row's largest correlation u_t = <r_t, d_j> picks j, and
r_{t+1} = r_t - ReLU(u_t) d_j. Rows of the decoder must have length 1.
"""

import torch
from torch import Tensor
from torch.linalg import vecdot

from overtone.core.settings import require
from overtone.dictionaries.codes import Support
from overtone.dictionaries.decoders.base import Decoder
from overtone.dictionaries.encoders.base import At, Encoder, Heads
from overtone.dictionaries.solvers.pursuit import matching


class Unrolled(Encoder, kind="encoder.unrolled"):
    """`steps` steps of non-negative matching pursuit; a row rests once its residual is no longer than `tolerance` times
    the centred row, or correlates with no atom. Shares the decoder's matrix and has no weights of its own."""

    unrolled = True
    indivisible = "each step looks for the best of all atoms on what the steps before have left"

    def __init__(self, steps: int, tolerance: float = 0.0) -> None:
        super().__init__()
        require(steps >= 1, f"k={steps} steps: use at least 1.")
        require(0 <= tolerance < 1, f"tolerance={tolerance}: a share of the row's length, in [0, 1).")
        self.steps, self.tolerance = steps, tolerance

    def arguments(self) -> dict[str, int | float]:
        """steps and tolerance."""
        return {"steps": self.steps, "tolerance": self.tolerance}

    def affine(self, decoder: Decoder) -> tuple[Tensor, Tensor]:
        """The decoder's rows and no bias: the correlations of the first step."""
        rows = decoder.rows()
        return rows, rows.new_zeros(len(rows))

    def heads(self, u: Tensor, at: At) -> Heads:
        """One head."""
        return {"u": u}

    @torch.no_grad()
    def pursue(self, centred: Tensor, decoder: Decoder) -> tuple[Support, Tensor]:
        """The atoms picked in each row, step by step, and what each adds up to."""
        exact = centred.to(torch.promote_types(centred.dtype, torch.float32))
        rows = decoder.rows().to(exact)
        codes = matching(exact, rows, self.steps, signed=False, tolerance=self.tolerance)
        return Support.from_indices(codes.indices, len(rows)), codes.values.view(-1)

    def replay(self, centred: Tensor, decoder: Decoder, support: Support) -> Tensor:
        """u_t of each step, 0 where a row rested. Gradients reach each atom directly and through every later
        residual; which atom is picked has none. Work and memory: rows x steps x width."""
        picks = support.latents.view(support.n_rows, self.steps)
        enough = self.tolerance**2 * centred.detach().square().sum(1)
        left, found = centred, []
        for atoms in decoder.rows()[picks].unbind(1):
            u = vecdot(left, atoms)
            u = u * (left.detach().square().sum(1) > enough)
            left = left - u.relu()[:, None] * atoms
            found.append(u)
        return torch.stack(found, 1).view(-1)
