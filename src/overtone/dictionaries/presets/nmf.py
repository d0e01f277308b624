"""NMF: non-negative parts of non-negative (or shifted) states.

Source: Lee and Seung 1999; Cichocki and Phan 2009 (coordinate descent); scikit-learn. x - shift ~ z W with z >= 0, W >=
0; shift is the smallest value of each coordinate over the fitted rows where that is negative, else 0.
Promises: codes and atoms are not negative; the code of a state is its non-negative least squares solution.
"""

from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from overtone.core.settings import require
from overtone.dictionaries.classic.nonnegative import NonNegative
from overtone.dictionaries.preset import Preset, preset


@preset("nmf", role="baseline", capabilities=NonNegative.CAN)
@dataclass(frozen=True)
class NMF(Preset):
    """Non-negative matrix factorisation of the rows.

    iterations: most rounds of coordinate descent.
    """

    whole = True
    iterations: int = 200

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self.iterations >= 1, f"iterations={self.iterations}: use at least 1.")

    def fitted(self, rows: Float[Tensor, "rows width"], generator: torch.Generator) -> NonNegative:
        """The parts of a matrix of states."""
        import warnings

        from sklearn.decomposition import NMF as Factoriser
        from sklearn.exceptions import ConvergenceWarning

        shift = rows.double().amin(0).clamp_max(0)
        above = rows.double() - shift
        size = above.square().mean().sqrt().clamp_min(1e-30)  # its stopping rule is not free of scale
        seed = int(torch.randint(2**31 - 1, (), generator=generator))
        options: dict[str, Any] = {
            "n_components": self.n_latents,
            "init": "nndsvda",
            "max_iter": self.iterations,
            "random_state": seed,
        }
        if self.n_latents > min(rows.shape):
            options["init"] = "random"
        with warnings.catch_warnings():  # `iterations` says how far to go; the last round is a factorisation like any
            warnings.simplefilter("ignore", ConvergenceWarning)
            parts = Factoriser(**options).fit((above / size).numpy()).components_
        return NonNegative.of(torch.from_numpy(parts), shift)
