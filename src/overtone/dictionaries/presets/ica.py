"""ICA: directions along which the rows are as independent, and as far from Gaussian, as can be.

Source: Hyvarinen and Oja 2000 (FastICA, contrast log cosh); scikit-learn. z = (x - mean) U^T, x_hat = z A + mean, where
the rows of A are the mixing columns at length 1 and U unmixes within the leading n_latents principal components.
Promises: unit atoms, signed codes; with n_latents = width the reconstruction is exact. Not made for half precision:
atoms may lie close together, and then unmixing multiplies rounding errors.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from overtone.core.settings import require
from overtone.dictionaries.autoencoder import Autoencoder
from overtone.dictionaries.classic.fixed import signed_projection
from overtone.dictionaries.preset import Preset, preset

SHAPE = signed_projection(torch.eye(2), torch.eye(2), torch.zeros(2), k=1)  # no search, so scikit-learn is not loaded
VARIES = 1e-12  # share of the largest variance from which a direction counts: single precision tells no less


@preset("ica", capabilities=SHAPE.capabilities, role="baseline", inverse_pair=True)
@dataclass(frozen=True)
class ICA(Preset):
    """Independent components of the rows (FastICA).

    k: keep so many components in each row (None: all); iterations: most rounds of the fixed-point search.
    """

    whole, basis = True, True
    k: int | None = None
    iterations: int = 300

    def fitted(self, rows: Float[Tensor, "rows width"], generator: torch.Generator) -> Autoencoder:
        """The components of a matrix of states. Raises SettingError if there cannot be so many."""
        import warnings

        from sklearn.decomposition import FastICA
        from sklearn.exceptions import ConvergenceWarning

        require(
            self.n_latents <= min(rows.shape),
            f"n_latents={self.n_latents} components of {rows.shape[0]} rows of width {rows.shape[1]}: "
            f"there are at most {min(rows.shape)}. Use that many.",
        )
        exact = rows.double()
        size = exact.square().mean().sqrt().clamp_min(1e-30)
        spread = torch.linalg.eigvalsh(torch.cov((exact / size).T, correction=0))
        varied = int((spread > VARIES * spread.max().clamp_min(1e-3)).sum())  # equal rows vary by rounding
        require(
            self.n_latents <= varied,
            f"n_latents={self.n_latents} components of rows that vary in {varied} directions only: "
            + (f"use at most {varied}." if varied else "all rows are equal, so there is nothing to decompose."),
        )
        seed = int(torch.randint(2**31 - 1, (), generator=generator))
        search = FastICA(self.n_latents, whiten="unit-variance", max_iter=self.iterations, random_state=seed)
        with warnings.catch_warnings():  # Gaussian rows have no best directions; any rotation reconstructs as well
            warnings.simplefilter("ignore", ConvergenceWarning)
            search.fit((exact / size).numpy())
        unmixing, mixing = torch.from_numpy(search.components_), torch.from_numpy(search.mixing_).T
        length = mixing.norm(dim=1, keepdim=True)
        return signed_projection(unmixing * length, mixing / length, exact.mean(0), k=self.k)
