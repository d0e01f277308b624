"""The shared skeleton: six slots that every encoder-decoder dictionary fills.

In units of the dictionary, with centre c = the decoder's constant (or 0):
    x' = normaliser(x);  u = (x' - c) W_enc^T + b_enc;  active = selection(score(u));  z = value(u) on the active
    latents; x_hat = normaliser^-1(decoder(z)).
Codes leave in the states' units (z divided by the normaliser's factor), so that folding the scale away changes nothing.
"""

import copy
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import linear, normalize

from overtone.core.errors import CapabilityError
from overtone.dictionaries.codes import SparseCodes, Support
from overtone.dictionaries.decoders.base import Decoder
from overtone.dictionaries.decoders.linear import Linear as LinearDecoder
from overtone.dictionaries.dictionary import Capabilities, Dictionary
from overtone.dictionaries.encoders.base import Encoder
from overtone.dictionaries.encoders.linear import Linear as LinearEncoder
from overtone.dictionaries.normalisers import Normaliser, Scale, Unscaled
from overtone.dictionaries.scores import PreActivation, Score
from overtone.dictionaries.selectors.base import Selection
from overtone.dictionaries.values import Rectified, Value

BLOCK = 2**21  # pre-activations in memory at a time (8 MiB in float32): large blocks cost page faults, small ones calls


@dataclass(frozen=True, eq=False)
class Chosen:
    """Selected places and their pre-activations (n,)."""

    support: Support
    u: Tensor


class Autoencoder(Dictionary, kind="dictionary.autoencoder"):
    """A dictionary made of six parts. `centred`: the decoder's constant is subtracted before encoding.

    Build it with `linear_autoencoder` unless a slot other than score, selection and value differs.
    """

    def __init__(
        self, normaliser: Normaliser, encoder: Encoder, score: Score, selection: Selection, value: Value,
        decoder: Decoder, *, centred: bool = True,
    ) -> None:  # fmt: skip
        n_latents, width = decoder.rows().shape
        super().__init__(width, n_latents)
        selection.check(n_latents)
        self.normaliser, self.encoder, self.score = normaliser, encoder, score
        self.selection, self.value, self.decoder, self.centred = selection, value, decoder, centred

    def arguments(self) -> dict[str, Any]:
        """The specs of the six parts, and `centred`."""
        slots = ("normaliser", "encoder", "score", "selection", "value", "decoder")
        return {**{slot: getattr(self, slot).spec() for slot in slots}, "centred": self.centred}

    @property
    def capabilities(self) -> Capabilities:
        """What follows from the parts."""
        return Capabilities(
            signed_codes=self.value.signed,
            linear_decoder=self.decoder.linear,
            batch_independent=not self.selection.rows_compete,
            threshold_form=self.selection.has_threshold_form,
            decode_needs_input=self.decoder.needs_input,
            foldable=self.normaliser.foldable,
        )

    def start(self, rows: Float[Tensor, "rows width"]) -> None:
        """Fit the normaliser and set the constant to the mean row. Raises DataError if the rows do not vary."""
        rows = self.checked(rows)
        self.normaliser.fit(rows)
        with torch.no_grad():
            self.decoder.centre().copy_(self.normaliser(rows.double().mean(0)))
            if not self.centred:
                self.encoder.subtract(self.decoder.centre())

    def encode(self, x: Float[Tensor, "rows width"]) -> SparseCodes:
        """Codes of states, in the states' units. In training mode rows compete where the selection says so."""
        chosen = self.choose(self.normaliser(self.checked(x)) - self.centre(), company=self.training)
        z = self.value(self.encoder.heads(chosen.u, chosen.support.at), chosen.support.at) / self.normaliser.unit
        return chosen.support.codes(z if z.dtype == torch.float64 else z.float())

    def decode(self, codes: SparseCodes, x: Tensor | None = None) -> Float[Tensor, "rows width"]:
        """Reconstruction of codes, in the states' units."""
        codes = self.checked_codes(codes)
        inside = SparseCodes(codes.values * self.normaliser.unit, codes.indices, codes.n_latents)
        return self.normaliser.inverse(self.decoder(inside, x))

    def atoms(self) -> Float[Tensor, "latents width"]:
        """Rows of the decoder as unit vectors."""
        if not self.decoder.linear:
            raise CapabilityError(f"{self.decoder.kind} is not linear and has no atoms; use decode on edited codes.")
        return normalize(self.decoder.rows().detach(), dim=1)

    def atom_norms(self) -> Float[Tensor, " latents"]:
        """Lengths of the decoder's rows."""
        return self.decoder.rows().detach().norm(dim=1)

    def folded(self) -> "Autoencoder":
        """A copy whose weights carry the input scale. Raises CapabilityError if there is none to fold (any more)."""
        if not self.normaliser.foldable:
            raise CapabilityError(
                f"{self.normaliser.kind} cannot be folded: the scale was folded before, or there is none."
            )
        other = copy.deepcopy(self)
        for part in (other.encoder, other.selection, other.decoder):
            part.scale_codes(float(1.0 / self.normaliser.unit))
        other.normaliser = Unscaled()
        other.normaliser.spread.copy_(self.normaliser.spread / self.normaliser.unit**2)
        return other.to(self.decoder.centre().dtype)

    # ------------------------------------------------------------------------------------------- shared with training
    def centre(self) -> Tensor | float:
        """What is subtracted before encoding."""
        return self.decoder.centre() if self.centred else 0.0

    def choose(self, centred: Tensor, *, company: bool) -> Chosen:
        """The active places of states in the dictionary's units, less the centre, and their pre-activations, computed
        block by block."""
        weight, bias = self.encoder.affine(self.decoder)
        parts = [self._nominate(rows, weight, bias, company) for rows in self._blocks(centred)]
        support = Support.joined([p.support for p in parts])
        u = parts[0].u if len(parts) == 1 else torch.cat([p.u for p in parts])
        if not (company and self.selection.rows_compete):
            return Chosen(support, u)
        keep = self.selection.settle(support, self.score(self.encoder.heads(u, support.at), support.at))
        if keep is None:
            self.selection.widen()
            return self.choose(centred, company=company)
        return Chosen(support.kept(keep), u[keep])

    def _nominate(self, rows: Tensor, weight: Tensor, bias: Tensor, company: bool) -> Chosen:
        u = linear(rows, weight, bias)
        with torch.no_grad():
            support = self.selection.nominate(
                self.score(self.encoder.heads(u, _everywhere), _everywhere), company=company
            )
        return Chosen(support, support.take(u))

    def _blocks(self, centred: Tensor) -> Iterator[Tensor]:
        yield from centred.split(max(1, BLOCK // self.n_latents))


def _everywhere(vector: Tensor) -> Tensor:
    return vector


def linear_autoencoder(
    width: int, selection: Selection, generator: torch.Generator, *, n_latents: int,
    score: Score | None = None, value: Value | None = None, centred: bool = True, row_norm: float = 1.0,
    frozen_decoder: bool = False,
) -> Autoencoder:  # fmt: skip
    """An autoencoder with linear encoder and decoder and a scaled input, initialised and in eval mode.

    Decoder rows are random directions of length `row_norm`, encoder rows equal them, biases are zero. Score defaults to
    the pre-activation, value to its positive part.
    """
    encoder, decoder = LinearEncoder(width, n_latents), LinearDecoder(width, n_latents, frozen=frozen_decoder)
    rows = normalize(torch.randn(n_latents, width, generator=generator), dim=1) * row_norm
    decoder.weight.data.copy_(rows)
    encoder.weight.data.copy_(rows)
    model = Autoencoder(
        Scale(), encoder, score or PreActivation(), selection, value or Rectified(), decoder, centred=centred
    )
    return model.eval()
