"""Dictionaries that look a state up: one atom per centroid, one active latent per row."""

from typing import Any, ClassVar

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import normalize

from overtone.dictionaries.codes import SparseCodes
from overtone.dictionaries.dictionary import Capabilities, Dictionary


class Centroids(Dictionary, kind="dictionary.centroids"):
    """Each state is written as its nearest centroid: the centre plus one atom, centroid less centre, at unit length.

    The code's value is the distance of the centroid from the centre, the same for all states of a centroid.
    """

    CAN: ClassVar = Capabilities(has_preactivations=False, has_encoder_matrix=False, foldable=False)
    centroids: Tensor
    middle: Tensor

    def __init__(self, width: int, n_latents: int) -> None:
        super().__init__(width, n_latents)
        self.register_buffer("centroids", torch.zeros(n_latents, width))
        self.register_buffer("middle", torch.zeros(width))

    @classmethod
    def of(cls, centroids: Float[Tensor, "latents width"], middle: Float[Tensor, " width"]) -> "Centroids":
        """The dictionary of given centroids and a centre."""
        made = cls(centroids.shape[1], centroids.shape[0])
        made.centroids.copy_(centroids)
        made.middle.copy_(middle)
        return made.eval()

    def arguments(self) -> dict[str, Any]:
        """width and n_latents."""
        return {"width": self.width, "n_latents": self.n_latents}

    @property
    def capabilities(self) -> Capabilities:
        """A lookup: no pre-activations and no encoder."""
        return self.CAN

    def encode(self, x: Float[Tensor, "rows width"]) -> SparseCodes:
        """One active latent per row: the nearest centroid."""
        exact = torch.promote_types(self.centroids.dtype, torch.float32)
        nearest = torch.cdist(self.checked(x).to(exact), self.centroids.to(exact)).argmin(1, keepdim=True)
        return SparseCodes(self._offsets().norm(dim=1)[nearest].to(exact), nearest, self.n_latents)

    def decode(self, codes: SparseCodes, x: Tensor | None = None) -> Float[Tensor, "rows width"]:
        """The centre plus the active atoms."""
        codes = self.checked_codes(codes)
        return codes.dense().to(self.middle.dtype) @ self.atoms() + self.middle

    def atoms(self) -> Float[Tensor, "latents width"]:
        """Unit vectors from the centre to the centroids."""
        return normalize(self._offsets(), dim=1)

    def _offsets(self) -> Tensor:
        return self.centroids - self.middle
