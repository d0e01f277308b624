"""What is shared and what is one side's own, in a crosscoder of several models or layers.

Source: Lindsey et al. 2024, Anthropic, "Sparse crosscoders for cross-layer features and model diffing". A latent that
is one side's own under a price (L1) may be an artefact of the price: arXiv 2504.02922.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from overtone.core.errors import CapabilityError

if TYPE_CHECKING:
    from torch import Tensor


def view_shares(crosscoder: Any) -> Tensor:
    """(latents, views) share of each view in a latent's row: ||d^v|| / sum over views of ||d^w||, in [0, 1], lengths in
    units in which every view has the same size. Half and half: shared by two views; 0 or 1: one view's own. A row of
    length 0 has shares of NaN.

    Raises CapabilityError for a dictionary without views.
    """
    decoder = getattr(crosscoder, "decoder", None)
    if decoder is None or not hasattr(decoder, "block_norms"):
        raise CapabilityError(f"{crosscoder.kind} has no views. Give a dictionary that the preset crosscoder made.")
    lengths = decoder.block_norms().detach()
    return lengths / lengths.sum(1, keepdim=True)


def relative_norms(crosscoder: Any, first: int = 0, second: int = 1) -> Tensor:
    """(latents,) ||d^B|| / (||d^A|| + ||d^B||) for views A = first and B = second, in [0, 1]: 0 is A's own, 1 is B's
    own, 1/2 shared. Raises CapabilityError for a dictionary without these views."""
    shares = view_shares(crosscoder)
    if not 0 <= first < shares.shape[1] or not 0 <= second < shares.shape[1] or first == second:
        raise CapabilityError(
            f"views {first} and {second} of {shares.shape[1]}: name two different ones, counted from 0."
        )
    return shares[:, second] / (shares[:, first] + shares[:, second])
