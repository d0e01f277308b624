"""What latents add alone and together in a decoder that is a polynomial of the code.

Source: PolySAE, arXiv 2602.01322.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from overtone.core.errors import CapabilityError, DataError
from overtone.dictionaries.autoencoder import Autoencoder
from overtone.dictionaries.decoders.polynomial import Polynomial
from overtone.dictionaries.dictionary import Dictionary


def polynomial_of(dictionary: Dictionary) -> tuple[Polynomial, float]:
    """The decoder, and the factor from the states' units to its own. Raises CapabilityError for another decoder."""
    if not isinstance(dictionary, Autoencoder) or not isinstance(dictionary.decoder, Polynomial):
        raise CapabilityError(
            "this decoder is linear: what two latents add together is the sum of what each adds. Interactions need a "
            "polynomial decoder, as in the preset poly_sae."
        )
    return dictionary.decoder, float(dictionary.outward.unit)


def linear_parts(dictionary: Dictionary, latents: Sequence[int]) -> Tensor:
    """(n, width) what the values of some latents are multiplied with in the reconstruction, powers left aside. Raises
    CapabilityError for a decoder that is not polynomial, DataError for latents that do not exist."""
    decoder, _ = polynomial_of(dictionary)
    with torch.no_grad():
        return decoder.rows()[_known(latents, dictionary.n_latents)]


def interaction_vector(dictionary: Dictionary, *latents: int) -> Tensor:
    """(width,) what the product of the values of two or three different latents is multiplied with in the
    reconstruction, in states' units.

    Two gain it together at value 1 beyond either alone, cubic terms aside; three beyond any two of them. Raises
    CapabilityError for a decoder that is not polynomial, DataError for another number of latents, for one that is named
    twice or does not exist.
    """
    decoder, unit = polynomial_of(dictionary)
    if len(latents) not in (2, 3) or len(set(latents)) < len(latents):
        raise DataError(f"an interaction of latents {list(latents)}: name two or three different ones.")
    with torch.no_grad():
        vector = decoder.bindings(*_known(latents, dictionary.n_latents)[:, None])[0]
    return vector * unit ** (len(latents) - 1)


def _known(latents: Sequence[int], n_latents: int) -> Tensor:
    """The latents as a tensor. Raises DataError for one that does not exist."""
    bad = [int(latent) for latent in latents if not 0 <= latent < n_latents]
    if bad:
        raise DataError(f"latent {bad[0]} does not exist; this dictionary has latents 0 to {n_latents - 1}.")
    return torch.as_tensor([int(latent) for latent in latents], dtype=torch.int64)
