"""k-means: the centroids that lie nearest to the rows.

Source: Lloyd 1982, started as Arthur and Vassilvitskii 2007 do; scikit-learn. The centre is the
mean row; a row's code is its nearest centroid's latent (classic/centroids).
Promises: one active latent per row, non-negative, unit atoms; the reconstruction of a row is a centroid.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from overtone.core.settings import require
from overtone.dictionaries.classic.centroids import Centroids
from overtone.dictionaries.preset import Preset, preset


@preset("k_means", role="baseline", capabilities=Centroids.CAN)
@dataclass(frozen=True)
class KMeans(Preset):
    """Centroids of the rows: what clustering alone would find.

    starts: the best of so many starts is kept.
    """

    whole = True
    starts: int = 1

    def fitted(self, rows: Float[Tensor, "rows width"], generator: torch.Generator) -> Centroids:
        """The centroids of a matrix of states. Raises SettingError if there are fewer rows than centroids."""
        from sklearn.cluster import KMeans as Lloyd

        require(
            self.n_latents <= len(rows),
            f"n_latents={self.n_latents} centroids of {len(rows)} rows: use at most as many as there are rows.",
        )
        seed = int(torch.randint(2**31 - 1, (), generator=generator))
        lloyd = Lloyd(self.n_latents, n_init=self.starts, random_state=seed)  # pyright: ignore[reportArgumentType]
        found = lloyd.fit(rows.float().numpy())
        return Centroids.of(torch.from_numpy(found.cluster_centers_), rows.float().mean(0))
