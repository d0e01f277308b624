"""One form for many dictionaries: unit rows and a threshold per latent, as most libraries expect them."""

import copy
from typing import TypeVar

import torch
from torch import Tensor

from overtone.core.errors import CapabilityError
from overtone.dictionaries.autoencoder import Autoencoder
from overtone.dictionaries.dictionary import Dictionary
from overtone.dictionaries.selectors.base import Selection
from overtone.dictionaries.selectors.threshold import Threshold
from overtone.dictionaries.values import GatedMagnitude, Jump, Rectified, Signed

HOMOGENEOUS = (Rectified, Signed, GatedMagnitude, Jump)
UNIT = 1e-5  # lengths that differ less from 1 are 1
_Dictionary = TypeVar("_Dictionary", bound=Dictionary)


@torch.no_grad()
def with_unit_rows(dictionary: _Dictionary) -> _Dictionary:
    """A copy whose atoms have length 1, in eval mode: codes are multiplied by the old lengths, thresholds too, and
    reconstructions stay as they are. A budget over a batch and learned thresholds become fixed ones. Where all lengths
    are 1 already, that is all that changes.

    Raises CapabilityError where the decoder is not linear, where a row has length 0, where the parts do not scale, or
    where latents compete within a row by pre-activations that would no longer compare as before.
    """
    lengths = dictionary.atom_norms() if dictionary.capabilities.linear_decoder else None
    if lengths is None or not bool((lengths > 0).all()):
        raise CapabilityError(f"{dictionary.kind} has no atoms, or atoms of length 0, to bring to length 1.")
    uneven = bool(((lengths - 1).abs() > UNIT).any())
    other = copy.deepcopy(dictionary).eval()
    if isinstance(other, Autoencoder):
        _bring_to_length_1(other, lengths if uneven else torch.ones_like(lengths), uneven)
    elif uneven:
        raise CapabilityError(
            f"{dictionary.kind} has atoms of other lengths than 1, which belong to it. Use it as it is."
        )
    return other


def _bring_to_length_1(model: Autoencoder, lengths: Tensor, uneven: bool) -> None:
    if uneven and not isinstance(model.value, HOMOGENEOUS):
        raise CapabilityError(
            f"{model.value.kind} does not scale with the pre-activations, and rows differ from length 1. Use the "
            "dictionary as it is."
        )
    model.selection = _selection(model, lengths)
    if isinstance(model.value, Jump):
        model.value = Rectified()
    if uneven:
        model.encoder.scale_latents(lengths)
        model.decoder.scale_latents(lengths)


def _selection(dictionary: Autoencoder, lengths: Tensor) -> Selection:
    """The selection of the rescaled dictionary."""
    own, normed = dictionary.selection, dictionary.score.uses_norms
    if not own.has_threshold_form:
        if not normed and not bool(torch.isclose(lengths, lengths[0], rtol=1e-4).all()):
            raise CapabilityError(
                f"{own.kind} ranks pre-activations of latents whose rows differ in length, and lengths of 1 would rank "
                "them otherwise. Export it as it is."
            )
        return copy.deepcopy(own)
    made = Threshold(dictionary.n_latents).to(lengths.device)
    theta = own.theta.detach().to(lengths.dtype).expand(dictionary.n_latents)
    made.theta = (theta if normed else theta * lengths).clone()
    return made
