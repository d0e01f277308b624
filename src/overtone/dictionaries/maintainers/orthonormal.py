"""Columns of a mixing matrix kept orthonormal."""

from typing import Any

import torch
from torch import Tensor

from overtone.dictionaries.autoencoder import Autoencoder
from overtone.dictionaries.maintainers.base import Maintainer


class OrthonormalMix(Maintainer):
    """Replaces the decoder's `mix` by the Q of its QR decomposition after each update, with the signs that leave an
    orthonormal matrix as it is. Source: PolySAE, arXiv 2602.01322."""

    indivisible = "columns are orthonormal over all latents"

    def begin(self, dictionary: Autoencoder) -> None:
        """Start orthonormal."""
        self.after_update(dictionary)

    @torch.no_grad()
    def after_update(self, dictionary: Autoencoder) -> None:
        """U <- Q sign(diag R)."""
        decoder: Any = dictionary.decoder
        decoder.mix.copy_(retracted(decoder.mix))


def retracted(mix: Tensor) -> Tensor:
    """The orthonormal (latents, rank) matrix that a reduced QR decomposition with a positive diagonal gives."""
    q, r = torch.linalg.qr(mix)
    return q * torch.where(r.diagonal() < 0, -1.0, 1.0).to(q.dtype)
