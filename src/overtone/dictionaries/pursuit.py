"""Pursuit inference: any dictionary with a linear decoder, encoded by a pursuit on its own atoms.

Its error is what the decoder could reach at that L0; the gap to the dictionary's own codes is the encoder's share of
the error. What even a pursuit misses is out of reach of these atoms.
Sources: standard practice for fixed dictionaries (Mallat and Zhang 1993; Pati et al. 1993; Blumensath and Davies 2008).
"""

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from overtone.core.errors import CapabilityError, nearest
from overtone.core.settings import require
from overtone.dictionaries.codes import SparseCodes
from overtone.dictionaries.dictionary import Capabilities, Dictionary
from overtone.dictionaries.solvers.pursuit import METHODS

BLOCK = 2**21  # correlations in memory at a time


class Pursuit(Dictionary, kind="dictionary.pursuit"):
    """A dictionary whose atoms and decoder are those of `host` and whose codes are found by pursuit.

    method: "matching", "orthogonal" or "gradient" (solvers/pursuit); k: steps, so at most k active latents per row;
    signed: whether codes may be negative (None: as the host's are); tolerance: a row rests once its residual is no
    longer than that share of the centred row. Raises CapabilityError for a host whose decoder is not linear or needs
    the state, or which predicts other states than it reads; SettingError for anything else that cannot be.
    """

    def __init__(
        self, host: Dictionary, method: str = "orthogonal", *, k: int, signed: bool | None = None,
        tolerance: float = 0.0,
    ) -> None:  # fmt: skip
        super().__init__(host.width, host.n_latents)
        can = host.capabilities
        if not can.linear_decoder or can.decode_needs_input or can.predicts_other_states:
            raise CapabilityError(
                "this dictionary does not write the states that it reads as a sum of atoms and a constant, so there is "
                "nothing to pursue. Leave pursuits out, or take one that does, such as top_k (its capabilities: "
                "linear_decoder, not decode_needs_input, not predicts_other_states)."
            )
        require(method in METHODS, f"method={method!r}.{nearest(method, METHODS)} Pursuits are {', '.join(METHODS)}.")
        require(1 <= k <= host.n_latents, f"k={k} steps over {host.n_latents} atoms: use 1 to {host.n_latents}.")
        require(0 <= tolerance < 1, f"tolerance={tolerance}: a share of the row's length, in [0, 1).")
        self.host, self.method, self.k, self.tolerance = host, method, k, tolerance
        self.signed = can.signed_codes if signed is None else signed
        self.origin = {"pursuit": method, "k": k, "host": host.origin}
        self.eval()

    def arguments(self) -> dict[str, Any]:
        """The host's spec and the settings."""
        settings = {"method": self.method, "k": self.k, "signed": self.signed, "tolerance": self.tolerance}
        return {"host": self.host.spec(), **settings}

    @property
    def capabilities(self) -> Capabilities:
        """No encoder: codes are solved for."""
        return Capabilities(
            signed_codes=self.signed, has_preactivations=False, has_encoder_matrix=False, foldable=False,
            several_views=self.host.capabilities.several_views,
        )  # fmt: skip

    @property
    def views(self) -> tuple[int, ...]:
        """The host's."""
        return self.host.views

    @torch.no_grad()
    def encode(self, x: Float[Tensor, "rows width"]) -> SparseCodes:
        """At most k active latents per row, in the units of the host's codes."""
        x = self.host.checked(x)
        nothing = SparseCodes(x.new_zeros(1, 1), x.new_zeros(1, 1, dtype=torch.int64), self.n_latents)
        centred = (x - self.host.decode(nothing)).float() if x.dtype != torch.float64 else x - self.host.decode(nothing)
        atoms, norms = self.atoms().to(centred), self.atom_norms().to(centred)
        parts = [
            METHODS[self.method](rows, atoms, self.k, signed=self.signed, tolerance=self.tolerance)
            for rows in centred.split(max(1, BLOCK // self.n_latents))
        ]
        codes = SparseCodes.joined(parts)
        return SparseCodes(codes.values / norms.clamp_min(1e-30)[codes.indices], codes.indices, self.n_latents)

    def decode(self, codes: SparseCodes, x: Tensor | None = None) -> Float[Tensor, "rows width"]:
        """The host's reconstruction."""
        return self.host.decode(codes)

    def atoms(self) -> Float[Tensor, "latents width"]:
        """The host's atoms."""
        return self.host.atoms()

    def atom_norms(self) -> Float[Tensor, " latents"]:
        """The host's lengths."""
        return self.host.atom_norms()
