"""The shared skeleton: six slots that every encoder-decoder dictionary fills.

In units of the dictionary, with centre c = the decoder's constant (or 0):
    x' = normaliser(x);  u = (x' - c) W_enc^T + b_enc;  active = selection(score(u));  z = value(u) on the active
    latents; x_hat = normaliser^-1(decoder(z)).
Codes leave in the states' units (z divided by the normaliser's factor), so that folding the scale away changes nothing.
A transcoder has a second normaliser, `target`, for the states that it predicts; codes are in their units.
"""

import copy
import threading
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import normalize

from overtone.core.errors import CapabilityError, DataError, SettingError, ShapeError, nearest
from overtone.dictionaries.choice import Chosen, Settle, everywhere
from overtone.dictionaries.codes import SparseCodes, Support
from overtone.dictionaries.decoders.base import Decoder
from overtone.dictionaries.decoders.linear import Linear as LinearDecoder
from overtone.dictionaries.dictionary import Capabilities, Dictionary
from overtone.dictionaries.encoders.base import At, Encoder, Heads
from overtone.dictionaries.encoders.linear import Linear as LinearEncoder
from overtone.dictionaries.kernels import memory
from overtone.dictionaries.kernels.dispatch import kernels_for
from overtone.dictionaries.normalisers import Normaliser, Scale, Unscaled
from overtone.dictionaries.scores import PreActivation, Product, Score
from overtone.dictionaries.scores import product as torch_product
from overtone.dictionaries.selectors.base import Selection
from overtone.dictionaries.slices import Slice, being_made
from overtone.dictionaries.starts import random_rows
from overtone.dictionaries.values import Rectified, Value

# Pre-activations in memory at a time. On a CPU (8 MiB in float32) large blocks cost page faults, small ones calls; an
# accelerator (1 GiB) needs enough of them to be busy.
BLOCK, ACCELERATOR_BLOCK = 2**21, 2**28
# Multiplications, and rows, from which the kernels of training find codes faster although weights have to be packed.
WORTH, FEW_ROWS = 2**31, 64
AT_ONCE = 2**14  # rows for which these have room for what thresholds may give
ONE_BY_ONE = threading.Lock()  # they keep packed weights, and use all threads that torch has


class Autoencoder(Dictionary, kind="dictionary.autoencoder"):
    """A dictionary made of six parts. `centred`: the decoder's constant is subtracted before encoding; `target`: for
    transcoders, the units of the states that are predicted. Such a dictionary is not centred.

    Build it with `linear_autoencoder` unless a slot other than score, selection and value differs.
    """

    middle: Tensor | None

    def __init__(
        self, normaliser: Normaliser, encoder: Encoder, score: Score, selection: Selection, value: Value,
        decoder: Decoder, *, centred: bool = True, target: Normaliser | None = None,
    ) -> None:  # fmt: skip
        n_latents, width_out = decoder.rows().shape
        super().__init__(encoder.width(decoder), n_latents)
        self.width_out, made = width_out, being_made()
        self.slice = made if made is not None and made.size == n_latents else Slice.all(n_latents)
        selection.check(self.slice.n_latents)
        self.normaliser, self.encoder, self.score = normaliser, encoder, score
        self.selection, self.value, self.decoder, self.centred = selection, value, decoder, centred
        self.target = target
        self.register_buffer("middle", None, persistent=False)

    def place(self, where: Slice) -> None:
        """From now on this is a slice of a dictionary, of which its parts have been cut down to."""
        self.n_latents = where.size
        self.slice = self.selection.slice = self.value.slice = where

    def arguments(self) -> dict[str, Any]:
        """The specs of the six parts, `centred`, and the target's units where it is a transcoder."""
        slots = ["normaliser", "encoder", "score", "selection", "value", "decoder"]
        slots += [] if self.target is None else ["target"]
        assert self.middle is None, "what is written down must not lean on a middle: settle it first"
        return {**{slot: getattr(self, slot).spec() for slot in slots}, "centred": self.centred}

    @property
    def outward(self) -> Normaliser:
        """Units of reconstruction and codes."""
        return self.normaliser if self.target is None else self.target

    @property
    def spread(self) -> Tensor:
        """E||y - mean||^2 of what is reconstructed, in the dictionary's units."""
        return self.outward.spread

    @property
    def capabilities(self) -> Capabilities:
        """What follows from the parts."""
        return Capabilities(
            signed_codes=self.value.signed,
            linear_decoder=self.decoder.linear,
            batch_independent=not self.selection.rows_compete,
            threshold_form=self.selection.has_threshold_form,
            decode_needs_input=self.decoder.needs_input or self.outward.rowwise,
            predicts_other_states=self.target is not None,
            several_views=len(self.views) > 1,
            has_preactivations=not self.encoder.unrolled,
            has_encoder_matrix=not self.encoder.unrolled,
            deterministic=not self.value.draws,
            foldable=self.normaliser.foldable,
        )

    @property
    def views(self) -> tuple[int, ...]:
        """The decoder's, where it has several."""
        return self.decoder.widths or super().views

    def start(self, rows: Float[Tensor, "rows width"], targets: Tensor | None = None) -> None:
        """Fit the units and set the constant to the mean of what is to be reconstructed: the rows, or (rows, width_out)
        targets. Raises DataError if they do not vary or a transcoder gets no targets."""
        rows = self.checked(rows)
        self.normaliser.fit(rows)
        if self.target is not None:
            self.target.fit(self.checked_targets(targets))
        aim = rows if self.target is None else self.checked_targets(targets)
        self.selection.start((self.normaliser.spread / self.width).sqrt())
        with torch.no_grad():
            self.decoder.centre().copy_(self.outward(aim.double().mean(0)))
            if not self.centred:
                self.encoder.subtract(self.normaliser(rows.double().mean(0)).to(self.decoder.centre().dtype))
            self.decoder.start(self.normaliser(rows), self.outward(aim))

    def checked_targets(self, targets: Tensor | None) -> Tensor:
        """(rows, width_out) targets, unchanged. Raises DataError if there are none."""
        if targets is None:
            raise DataError(
                "this dictionary predicts other states than it reads, and got none to predict. Name the site to "
                "predict (target=...)."
            )
        return targets.to(self.decoder.centre().device)

    def encode(self, x: Float[Tensor, "rows width"], beside: Mapping[str, Tensor] | None = None) -> SparseCodes:
        """Codes of states, in the states' units. In training mode rows compete where the selection says so.

        beside: what came with the states, such as `g`, (rows, width) gradients, for scores that use it. Such codes know
        what the gradients know, the loss's targets among it; without it every dictionary encodes from states alone.
        Raises ShapeError where they are of other rows, SettingError for a name that this dictionary does not know, and
        CapabilityError if it takes nothing beside the states.
        """
        x = self.checked(x)
        beside = self._checked_beside(beside or {}, x)
        centred = self.normaliser(x) - self.centre()
        chosen = None if self.training else self._choose_fast(centred, beside)
        if chosen is None:
            chosen = self.choose(centred, company=self.training, beside=beside)
        z = self.value(self.heads(chosen), chosen.support.at) / self.outward.units_at(x, chosen.support.rows)
        return chosen.support.codes(z if z.dtype == torch.float64 else z.float())

    def _checked_beside(self, beside: Mapping[str, Tensor], x: Tensor) -> dict[str, Tensor]:
        taken = self.score.reads
        if beside and not taken:
            raise CapabilityError(
                f"got {', '.join(beside)} beside the states, and this dictionary selects by states alone. Encode with "
                "encode(x), or use one that takes more, such as g_sae."
            )
        if unknown := [name for name in beside if name not in taken]:
            raise SettingError(
                f"{unknown[0]!r} beside the states is unknown.{nearest(unknown[0], taken)} This dictionary takes "
                f"{', '.join(sorted(taken))}."
            )
        for name, part in beside.items():
            if len(part) != len(x):
                raise ShapeError(f"{name}: expected {len(x)} rows, as many as states, got {tuple(part.shape)}.")
        return {name: part.to(x.device) for name, part in beside.items()}

    def _choose_fast(self, centred: Tensor, beside: Mapping[str, Tensor]) -> Chosen | None:
        """What `choose` finds without company, by the kernels of training; None where they are no help: for little
        work, and where a gradient is wanted."""
        work = centred.numel() * self.n_latents
        if work < WORTH or len(centred) < FEW_ROWS:
            return None
        if torch.is_grad_enabled() and (centred.requires_grad or any(p.requires_grad for p in self.parameters())):
            return None
        kernels, parts, centred = kernels_for(centred.device), [], centred.contiguous()
        with ONE_BY_ONE:
            try:
                for i in range(0, len(centred), AT_ONCE):
                    near = {name: part[i : i + AT_ONCE] for name, part in beside.items()}
                    found = kernels.choose_alone(self, centred[i : i + AT_ONCE], near)
                    if found is None:
                        return None
                    parts.append(found)
            finally:
                memory.release()
        return _joined(parts)

    def decode(self, codes: SparseCodes, x: Tensor | None = None) -> Float[Tensor, "rows width_out"]:
        """Reconstruction of codes, in the units of the states that are reconstructed. Raises DataError where
        capabilities.decode_needs_input says that x is needed and there is none."""
        codes = self.checked_codes(codes)
        rows = self.checked(x) if self.outward.rowwise and x is not None else None
        inside = SparseCodes(codes.values * self.outward.units(rows), codes.indices, codes.n_latents)
        return self.outward.inverse(self.decoder(inside, self._beside(x)), rows)

    def _beside(self, x: Tensor | None) -> Tensor | None:
        if not self.decoder.needs_input:
            return None
        if x is None:
            raise DataError("this decoder also reads the encoded states: decode(codes, x).")
        return self.normaliser(self.checked(x))

    def atoms(self) -> Float[Tensor, "latents width"]:
        """Rows of the decoder as unit vectors in the space of the states."""
        return normalize(self._linear_rows(), dim=1)

    def atom_norms(self) -> Float[Tensor, " latents"]:
        """Lengths of the decoder's rows in the space of the states. Raises CapabilityError as `atoms`."""
        return self._linear_rows().norm(dim=1)

    def _linear_rows(self) -> Tensor:
        if not self.decoder.linear:
            raise CapabilityError(f"{self.decoder.kind} is not linear and has no atoms; use decode on edited codes.")
        rows, factors = self.decoder.rows().detach(), self.outward.factors
        return rows * (self.outward.unit / factors) if isinstance(factors, Tensor) and factors.ndim else rows

    def folded(self) -> "Autoencoder":
        """A copy whose weights carry the input scale. Raises CapabilityError if there is none to fold (any more)."""
        if not self.normaliser.foldable:
            raise CapabilityError(
                f"{self.normaliser.kind} cannot be folded: the scale was folded before, or there is none."
            )
        other = copy.deepcopy(self)
        other.settle()
        for part in (other.encoder, other.selection, other.value, other.decoder):
            part.scale_codes(float(1.0 / self.outward.unit))
            part.scale_input(_number(self.normaliser.factors / self.outward.unit))
            part.scale_output(_number(self.outward.unit / self.outward.factors))
        if self.score.uses_norms and not torch.allclose(other.decoder.norms(), self.decoder.norms(), rtol=1e-4):
            raise CapabilityError(
                f"folding {self.outward.kind} into {self.decoder.kind} would change the lengths of rows, by which "
                "latents compete. Wrap the decoder in Blocks, or use the dictionary as it is."
            )
        other.normaliser = _unscaled(self.normaliser)
        other.target = None if self.target is None else _unscaled(self.target)
        return other

    # ------------------------------------------------------------------------------------------- shared with training
    def centre(self) -> Tensor | float:
        """What is subtracted before encoding."""
        if self.centred:
            return self.decoder.centre()
        return 0.0 if self.middle is None else self.middle

    def lean_on(self, middle: Float[Tensor, " width"]) -> None:
        """Subtract a constant, in the dictionary's units, before encoding, and have the bias make up for it: the same
        function, but what the matrix learns from a state does not depend on where the states lie. Training does so with
        dictionaries that are not `centred` and whose latents compete (with a price, rates of biases become too low for
        it to lower L0); `settle` undoes it."""
        self.settle()
        self.encoder.subtract(-middle)
        self.middle = middle

    def settle(self) -> None:
        """Subtract nothing that is not written down, and let the bias make up for that."""
        if self.middle is not None:
            self.encoder.subtract(self.middle)
            self.middle = None

    def heads_of(self, u: Tensor, at: At, sides: Mapping[str, Tensor]) -> Heads:
        """All heads in the shape of affine pre-activations `u`: the encoder's, `theta` and `norm` where a part asks for
        them, and the sides."""
        heads = {**self.encoder.heads(u, at), **sides}
        if self.selection.learned:
            heads["theta"], heads["window"] = at(self.selection.theta), self.selection.window
        if self.score.uses_norms:
            heads["norm"] = at(self.decoder.norms())
        return heads

    def heads(self, chosen: Chosen) -> Heads:
        """All heads at chosen places."""
        return self.heads_of(chosen.u, chosen.support.at, chosen.sides)

    def scores(self, chosen: Chosen) -> Tensor:
        """(n,) scores at chosen places."""
        return self.score(self.heads(chosen), chosen.support.at)

    def choose(
        self, centred: Tensor, *, company: bool, beside: Mapping[str, Tensor] | None = None, peaks: bool = False,
        settle: Settle | None = None, first: int = 0, product: Product = torch_product,
    ) -> Chosen:  # fmt: skip
        """The active places of states in the dictionary's units, less the centre, and their pre-activations, computed
        block by block. Which places are active has no gradient.

        beside: (rows, ...) tensors that came with the states, such as `g`; peaks: say the largest pre-activations too;
        where others work on the rest of a batch, settle: makes the cut among the nominees instead of the selection;
        first: number in the batch of the first row; product: what makes dense products.
        """
        if self.encoder.unrolled:
            found = [self.encoder.pursue(rows, self.decoder) for _, rows, _ in self._blocks(centred, {})]
            return _joined([Chosen(support, u) for support, u in found])
        weight, bias = self.encoder.affine(self.decoder)
        parts = [
            self.nominate(
                product(rows, weight).add_(bias),
                rows,
                company=company,
                beside=near,
                peaks=peaks,
                first=first + start,
                product=product,
            )  # fmt: skip
            for start, rows, near in self._blocks(centred, beside or {})
        ]
        chosen = _joined(parts)
        if settle is None and not (company and self.selection.rows_compete):
            return chosen
        with torch.no_grad():
            keep = (settle or self.selection.settle)(chosen.support, self.scores(chosen))
        if keep is None:
            self.selection.widen()
            return self.choose(
                centred, company=company, beside=beside, peaks=peaks, settle=settle, first=first, product=product
            )
        return chosen.kept(keep)

    def nominate(
        self, u: Tensor, states: Tensor, *, company: bool, beside: Mapping[str, Tensor], peaks: bool = False,
        first: int = 0, product: Product = torch_product,
    ) -> Chosen:  # fmt: skip
        """The places of (rows, latents) pre-activations of some states, the first of which is row `first` of its batch,
        that can be active; see `choose`."""
        with torch.no_grad():
            drawn = self.value.sides(first, *u.shape) if company else {}
            sides = {**self.score.sides(self.decoder, beside, product), **drawn}
            scores = self.score(self.heads_of(u, everywhere, sides), everywhere)
            support = self.selection.nominate(scores, company=company, states=states)
            taken = {name: support.take(side) for name, side in sides.items()}
            highest = u.amax(0) if peaks else None
        return Chosen(support, support.take(u), taken, highest)

    def _blocks(self, centred: Tensor, beside: Mapping[str, Tensor]) -> Iterator[tuple[int, Tensor, dict[str, Tensor]]]:
        block = BLOCK if centred.device.type == "cpu" else ACCELERATOR_BLOCK
        size = max(1, block // self.n_latents)
        for start in range(0, len(centred), size):
            yield (
                start,
                centred[start : start + size],
                {name: rows[start : start + size] for name, rows in beside.items()},
            )


def _joined(parts: list[Chosen]) -> Chosen:
    if len(parts) == 1:
        return parts[0]
    sides = {name: torch.cat([p.sides[name] for p in parts]) for name in parts[0].sides}
    peaks = [p.peaks for p in parts if p.peaks is not None]
    highest = torch.stack(peaks).amax(0) if peaks else None
    return Chosen(Support.joined([p.support for p in parts]), torch.cat([p.u for p in parts]), sides, highest)


def _number(factor: Tensor | float) -> Tensor | float:
    return factor if isinstance(factor, Tensor) and factor.ndim else float(factor)


def _unscaled(normaliser: Normaliser) -> Unscaled:
    plain = Unscaled().to(normaliser.spread)
    plain.spread.copy_(normaliser.spread / normaliser.unit**2)
    return plain


def linear_autoencoder(
    width: int, selection: Selection, generator: torch.Generator, *, n_latents: int,
    score: Score | None = None, value: Value | None = None, centred: bool = True, row_norm: float = 1.0,
    frozen_decoder: bool = False,
) -> Autoencoder:  # fmt: skip
    """An autoencoder with linear encoder and decoder and a scaled input, initialised and in eval mode.

    Decoder rows are random directions of length `row_norm`, encoder rows equal them, biases are zero. Score defaults to
    the pre-activation, value to its positive part.
    """
    rows = random_rows(n_latents, width, generator) * row_norm
    encoder, decoder = LinearEncoder(width, len(rows)), LinearDecoder(width, len(rows), frozen=frozen_decoder)
    decoder.weight.data.copy_(rows)
    encoder.weight.data.copy_(rows)
    model = Autoencoder(
        Scale(), encoder, score or PreActivation(), selection, value or Rectified(), decoder, centred=centred
    )
    return model.eval()
