"""Dictionaries: anything that writes a state as a combination of atoms.

Laws that hold for every dictionary (tests/contracts runs them over the catalogue):
1. In eval mode a row is encoded the same alone and in any company.
2. `decode(encode(x), x)` depends on nothing but its arguments: decoding alone, twice or after other calls is the same.
3. Saving and loading changes no bit.
4. For a linear decoder, `decode(codes) = codes.dense() @ (atom_norms * atoms) + decode(no codes)`.
5. What `capabilities` says is true.
"""

from dataclasses import asdict, dataclass
from typing import Any, ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from overtone.core.batch import require_finite
from overtone.core.errors import CapabilityError, DataError, ShapeError
from overtone.dictionaries.codes import SparseCodes
from overtone.dictionaries.parts import Part


@dataclass(frozen=True)
class Capabilities:
    """What a dictionary can do; consumers check these flags and never guess.

    signed_codes: values may be negative. linear_decoder: law 4 holds, so adding an atom edits the reconstruction by it.
    batch_independent: also while training, no row's code depends on the others (in eval mode none ever does).
    threshold_form: selection is, or is exported as, a fixed threshold. decode_needs_input: decode takes x too.
    predicts_other_states: reconstructs the states of another site than it reads (transcoders), where its atoms lie.
    several_views: reads several states of a row beside each other (crosscoders); an atom is as many blocks.
    has_preactivations, has_encoder_matrix: there are dense pre-activations; encoding starts with one matrix.
    deterministic: encoding draws no random numbers while training either (in eval mode it never does). foldable: input
    scaling can be folded into the weights.
    """

    signed_codes: bool = False
    linear_decoder: bool = True
    batch_independent: bool = True
    threshold_form: bool = False
    decode_needs_input: bool = False
    predicts_other_states: bool = False
    several_views: bool = False
    has_preactivations: bool = True
    has_encoder_matrix: bool = True
    deterministic: bool = True
    foldable: bool = True

    def to_dict(self) -> dict[str, bool]:
        """The flags by name."""
        return asdict(self)


class Dictionary(Part):
    """Interface of all dictionaries: encode, decode, atoms. `origin` says which preset and settings made it (plain
    data)."""

    width: int
    width_out: int  # of the reconstruction; the same unless other states are predicted
    n_latents: int
    origin: dict[str, Any]
    abstract: ClassVar[bool] = True

    def __init__(self, width: int, n_latents: int) -> None:
        super().__init__()
        self.width, self.n_latents, self.origin = width, n_latents, {}
        self.width_out = width

    @property
    def capabilities(self) -> Capabilities:
        """What this dictionary can do."""
        raise NotImplementedError

    @property
    def views(self) -> tuple[int, ...]:
        """Widths of the states that lie beside each other in a reconstruction, and in an atom: one, but for
        crosscoders."""
        return (self.width_out,)

    def encode(self, x: Float[Tensor, "rows width"]) -> SparseCodes:
        """Codes of rows of states, in the states' units. Raises ShapeError for another width and DataError for no rows
        or rows that are not finite."""
        raise NotImplementedError

    def decode(self, codes: SparseCodes, x: Tensor | None = None) -> Float[Tensor, "rows width_out"]:
        """(rows, width_out) reconstruction of codes. `x` is needed only where capabilities.decode_needs_input says so.
        Raises ShapeError if the codes belong to a dictionary with another number of latents."""
        raise NotImplementedError

    def atoms(self) -> Float[Tensor, "latents width"]:
        """What one latent adds, as unit vectors in the space of the states. Raises CapabilityError without a linear
        decoder."""
        raise NotImplementedError

    def atom_norms(self) -> Float[Tensor, " latents"]:
        """Length of what a latent of value 1 adds; 1 for dictionaries with unit atoms."""
        return torch.ones(self.n_latents, device=self.atoms().device)

    def start(self, rows: Float[Tensor, "rows width"], targets: Tensor | None = None) -> None:
        """Fit what is fitted before training (input scale, centre) on the first rows of states; targets: (rows,
        width_out) for dictionaries that predict other states."""

    def reconstruct(self, x: Float[Tensor, "rows width"]) -> Float[Tensor, "rows width_out"]:
        """decode(encode(x), x)."""
        return self.decode(self.encode(x), x)

    def folded(self) -> "Dictionary":
        """The same function without an input scaling step: codes and reconstructions agree with this dictionary's.
        Raises CapabilityError if there is nothing left to fold."""
        raise CapabilityError(f"{self.kind} has no input scaling that could be folded; use it as it is.")

    def checked(self, x: Tensor) -> Tensor:
        """`x` in the dictionary's own precision and device. Raises ShapeError or DataError as `encode` says."""
        if not isinstance(x, Tensor):
            raise ShapeError(
                f"expected a (rows, {self.width}) tensor of states, got a {type(x).__name__}. Make it one with "
                "torch.as_tensor."
            )
        if x.ndim != 2 or x.shape[1] != self.width:
            raise ShapeError(
                f"expected (rows, {self.width}) states, got {tuple(x.shape)}. This dictionary was made for width "
                f"{self.width}: use the site and model it was trained on."
            )
        if not len(x):
            raise DataError("there are no rows to encode. Check the positions that select them.")
        like = self._one_of_its_tensors(x)
        return require_finite(x, "states").to(dtype=like.dtype, device=like.device)

    def _one_of_its_tensors(self, other: Tensor) -> Tensor:
        """A floating tensor of this dictionary, or another one where it has none."""
        return next((p for p in [*self.parameters(), *self.buffers()] if p.is_floating_point()), other)

    def checked_codes(self, codes: SparseCodes) -> SparseCodes:
        """`codes` on the dictionary's device. Raises ShapeError if they are none, or have another number of
        latents."""
        if not isinstance(codes, SparseCodes):
            raise ShapeError(
                f"expected the SparseCodes that encode gives, got a {type(codes).__name__}. Make them of a (rows, "
                "latents) tensor with SparseCodes.from_dense."
            )
        if codes.n_latents != self.n_latents:
            raise ShapeError(
                f"these codes have {codes.n_latents} latents, this dictionary {self.n_latents}. Decode codes with the "
                "dictionary that encoded them."
            )
        device = self._one_of_its_tensors(codes.values).device
        return codes if codes.values.device == device else codes.to(device)
