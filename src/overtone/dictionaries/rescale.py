"""One form for many dictionaries: unit rows and a threshold per latent, as most libraries expect them."""

import copy

import torch
from torch import Tensor

from overtone.core.errors import CapabilityError
from overtone.dictionaries.autoencoder import Autoencoder
from overtone.dictionaries.selectors.base import Selection
from overtone.dictionaries.selectors.threshold import Threshold
from overtone.dictionaries.values import GatedMagnitude, Jump, Rectified, Signed

HOMOGENEOUS = (Rectified, Signed, GatedMagnitude, Jump)


@torch.no_grad()
def with_unit_rows(dictionary: Autoencoder) -> Autoencoder:
    """A copy whose decoder rows have length 1, in eval mode: codes are multiplied by the old lengths, thresholds too,
    and reconstructions stay as they are. A budget over a batch and learned thresholds become fixed ones.

    Raises CapabilityError where the decoder is not linear, where a row has length 0, where the parts do not scale, or
    where latents compete within a row by pre-activations that would no longer compare as before.
    """
    lengths = dictionary.atom_norms() if dictionary.decoder.linear else None
    if lengths is None or not bool((lengths > 0).all()):
        raise CapabilityError(f"{dictionary.decoder.kind} has no rows, or rows of length 0, to bring to length 1.")
    if not isinstance(dictionary.value, HOMOGENEOUS):
        raise CapabilityError(f"{dictionary.value.kind} does not scale with the pre-activations.")
    other = copy.deepcopy(dictionary).eval()
    other.selection = _selection(dictionary, lengths)
    if isinstance(other.value, Jump):
        other.value = Rectified()
    other.encoder.scale_latents(lengths)
    other.decoder.scale_latents(lengths)
    return other


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
