"""Principal components: the orthogonal directions of largest variance.

Source: Pearson 1901; classic. z = (x - mean) V^T with the n_latents leading right singular vectors V of the centred
rows; x_hat = z V + mean. With `k`, only the k largest magnitudes of each row are kept.
Promises: unit orthogonal atoms in order of variance, signed codes, no linear dictionary of n_latents atoms reconstructs
the fitted rows better (k None).
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from overtone.core.settings import require
from overtone.dictionaries.autoencoder import Autoencoder
from overtone.dictionaries.classic.fixed import signed_projection
from overtone.dictionaries.preset import Preset, preset


@preset("pca", role="baseline")
@dataclass(frozen=True)
class PCA(Preset):
    """The leading principal components of the rows.

    k: keep so many components in each row (None: all).
    """

    whole, basis = True, True
    k: int | None = None

    def fitted(self, rows: Float[Tensor, "rows width"], generator: torch.Generator) -> Autoencoder:
        """The components of a matrix of states. Raises SettingError if there cannot be so many."""
        require(
            self.n_latents <= min(rows.shape),
            f"n_latents={self.n_latents} components of {rows.shape[0]} rows of width {rows.shape[1]}: "
            f"there are at most {min(rows.shape)}. Use that many.",
        )
        exact = rows.double()
        mean = exact.mean(0)
        _, vectors = torch.linalg.eigh((exact - mean).T @ (exact - mean))
        leading = vectors.flip(1)[:, : self.n_latents].T
        return signed_projection(leading, leading, mean, k=self.k)
