"""Rows brought to one length."""

import torch
from torch import Tensor

USUAL = 1e-12, 1e12  # lengths whose squares are ordinary numbers
SHORTEST = 1e-30  # rows whose numbers are all smaller count as less long than they are, those of length 0 stay 0


def of_length(rows: Tensor, length: Tensor) -> Tensor:
    """Rows (n, width) with a length () of their own direction. Each is the same to the bit whatever the others are."""
    scaled, own = _measured(rows)
    return scaled * (length / own)


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
