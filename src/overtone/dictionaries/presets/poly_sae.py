"""PolySAE: a sparse code decoded by a polynomial, so that two latents together can mean a third thing.

Source: "PolySAE: modeling feature interactions in sparse autoencoders via polynomial decoding", arXiv 2602.01322.
z as in TopK (scope "row") or BatchTopK (scope "batch"), (rows, latents); a = z U, U (latents, R1) with U^T U = 1;
x_hat = b + a C1 + l2 (a[:R2])^2 C2 + l3 (a[:R3])^3 C3 with C1 (R1, width), C2 (R2, width), C3 (R3, width), numbers l2
and l3. Loss: the host's, AuxK through the polynomial too. U is retracted after each update (maintainers/orthonormal).
Deviations: 1. U and C1 start such that U C1 are the encoder's rows; in the authors' code they start unrelated; 2. the
encoder subtracts the constant; 3. one projector for all powers (the authors' variant with three is not here); 4.
BatchTopK as host, but not Matryoshka.
Promises: as the host, but the decoder is not linear: there are no atoms, and the effect of an edit of the code is
decode(edited) - decode(code). Directions are those of `from_linear_parts`, by whose sum the paper steers pairs, and
`from_interaction`, what two or three latents add only together.
"""

from dataclasses import dataclass

import torch
from torch.nn.functional import normalize

from overtone.dictionaries.autoencoder import Autoencoder
from overtone.dictionaries.decoders.polynomial import Polynomial
from overtone.dictionaries.encoders.linear import Linear
from overtone.dictionaries.maintainers.base import Maintainer
from overtone.dictionaries.maintainers.orthonormal import OrthonormalMix
from overtone.dictionaries.maintainers.threshold_mean import ThresholdMean
from overtone.dictionaries.normalisers import Scale
from overtone.dictionaries.objectives.auxiliary import ResidualAux
from overtone.dictionaries.objectives.base import Objective
from overtone.dictionaries.objectives.reconstruction import Reconstruction
from overtone.dictionaries.preset import Preset, preset
from overtone.dictionaries.scores import PreActivation
from overtone.dictionaries.selectors.rank import Rank, check_budget
from overtone.dictionaries.values import Rectified


@preset("poly_sae", paper="PolySAE, arXiv 2602.01322")
@dataclass(frozen=True)
class PolySAE(Preset):
    """Decode a sparse code by a polynomial of degree 3 and low rank.

    k: active latents per row; scope: "row" (TopK) or "batch" (BatchTopK, whose k may be a fraction); rank, square,
    cube: ranks of the linear, quadratic and cubic parts (None: the width, and a twelfth of the rank); aux_weight,
    k_aux: as in top_k.
    """

    least = {"square": 0, "cube": 0}
    k: int | float = 32
    scope: str = "row"
    rank: int | None = None
    square: int | None = None
    cube: int | None = None
    aux_weight: float = 1 / 32
    k_aux: int | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        check_budget(self.scope, self.k)

    def build(self, width: int, generator: torch.Generator) -> Autoencoder:
        """An untrained dictionary."""
        rank = min(width, self.n_latents) if self.rank is None else self.rank
        square, cube = (max(1, rank // 12) if power is None else power for power in (self.square, self.cube))
        encoder = Linear(width, self.n_latents)
        # Not `random_rows`: the decoder starts from a decomposition of all of them, on a slice too.
        encoder.weight.data.copy_(normalize(torch.randn(self.n_latents, width, generator=generator), dim=1))
        decoder = Polynomial(width, self.n_latents, rank=rank, square=square, cube=cube)
        decoder.initialise(encoder.weight.data, generator)
        return Autoencoder(Scale(), encoder, PreActivation(), Rank(self.scope, self.k), Rectified(), decoder).eval()

    def objectives(self) -> tuple[Objective, ...]:
        """Reconstruction and AuxK."""
        return Reconstruction(), ResidualAux(self.aux_weight, self.k_aux)

    def maintainers(self) -> tuple[Maintainer, ...]:
        """Orthonormal columns, and the threshold of a batch selection."""
        return (OrthonormalMix(), *((ThresholdMean(),) if self.scope == "batch" else ()))
