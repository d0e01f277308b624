"""Rows brought to one length."""

import torch
from torch import Tensor

from overtone.dictionaries.kernels.kept import Squares, kept

USUAL = 1e-12, 1e12  # lengths whose squares are ordinary numbers
EVEN = 1e-6  # lengths that differ less, in proportion, count as the same
SHORTEST = 1e-30  # rows whose numbers are all smaller count as less long than they are, those of length 0 stay 0


def of_length(rows: Tensor, length: Tensor) -> Tensor:
    """Rows (n, width) with a length () of their own direction. Each is the same to the bit whatever the others are."""
    scaled, own = _measured(rows)
    return scaled * (length / own)


def typical(rows: Tensor) -> Tensor:
    """() the root of the mean squared length of rows (n, width); 1 where rounding is all that it differs by."""
    known = kept(Squares, rows)
    squares = known.found.sum if known is not None else torch.linalg.vector_norm(rows, dim=1).square().sum()
    return rounded(torch.as_tensor(squares / len(rows), dtype=rows.dtype, device=rows.device).sqrt())


def rounded(length: Tensor) -> Tensor:
    """A () length; 1 where rounding is all that it differs by."""
    return torch.where((length - 1).abs() < EVEN, 1.0, length)


def are_usual(lengths: Tensor) -> Tensor:
    """Which lengths can be had from squares."""
    return (lengths > USUAL[0]) & (lengths < USUAL[1])


def _measured(rows: Tensor) -> tuple[Tensor, Tensor]:
    """Rows, times powers of two where squares would else vanish or exceed all numbers, and their (n, 1) lengths.
    Quotients are the same to the bit whether that is needed or not; an accelerator does not wait to find out."""
    if rows.device.type == "cpu":
        length = torch.linalg.vector_norm(rows, dim=1, keepdim=True)
        if bool(are_usual(length).all()):
            return rows, length
    largest = torch.maximum(rows.amax(1, keepdim=True), -rows.amin(1, keepdim=True))
    scaled = torch.ldexp(rows, -torch.frexp(largest.clamp_min(SHORTEST)).exponent)
    return scaled, torch.linalg.vector_norm(scaled, dim=1, keepdim=True).clamp_min(0.5)
