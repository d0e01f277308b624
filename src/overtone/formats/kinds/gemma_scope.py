"""Gemma Scope: params.npz with W_enc (width, latents), W_dec, b_enc, b_dec and threshold; JumpReLU, nothing subtracted.

Source: Lieberum et al. 2024, arXiv 2408.05147; the layout as its readers follow it (sae-lens 6.54.12, circuit-tracer
0.5.0). z = max(u, 0) where u > threshold. Names in lower case (`w_enc`) are read as well, and so is Gemma Scope 2:
params.safetensors with lower-case names and, for transcoders, affine_skip_connection (width, target width). Arrays are
float32; a file of pickled objects is refused.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from overtone.core.catalogue import enrol
from overtone.core.errors import CapabilityError, StoreError
from overtone.formats.choices import Choices
from overtone.formats.format import Foreign, Format, nothing_else, read_safetensors, taken
from overtone.formats.plain import Above, Gate, Plain, Positive

WEIGHTS, SECOND = "params.npz", "params.safetensors"
SKIP = "affine_skip_connection"


@enrol("formats", "gemma_scope", source="arXiv 2408.05147", reads=True, writes=True)
class GemmaScope(Format):
    """Gemma Scope: params.npz; params.safetensors of Gemma Scope 2 is read too."""

    name = "gemma_scope"

    def recognises(self, place: Path) -> bool:
        """A .npz file, or a folder with params.npz or params.safetensors."""
        return place.suffix == ".npz" or any((place / name).is_file() for name in (WEIGHTS, SECOND))

    def read(self, place: Path, choices: Choices) -> Foreign:
        """Its dictionary. Where it was trained stands in the path only, so there are no facts."""
        where = place if place.is_file() else place / WEIGHTS if (place / WEIGHTS).is_file() else place / SECOND
        arrays = _npz(where) if where.suffix == ".npz" else read_safetensors(where)
        arrays = {f"W{n[1:]}" if n.startswith("w_") else n: tensor for n, tensor in arrays.items()}
        nothing_else(arrays, ("W_enc", "W_dec", "b_enc", "b_dec", "threshold", SKIP), where, "Gemma Scope's layout")
        encoder = taken(arrays, "W_enc", (None, None), where)
        width, n_latents = encoder.shape
        decoder = taken(arrays, "W_dec", (n_latents, None), where)
        target = decoder.shape[1]
        skip = taken(arrays, SKIP, (width, target), where) if SKIP in arrays else None
        plain = Plain(
            encoder=encoder.T,
            bias=taken(arrays, "b_enc", (n_latents,), where),
            decoder=decoder,
            constant=taken(arrays, "b_dec", (target,), where),
            rule=Above(taken(arrays, "threshold", (n_latents,), where, bound=True).float()),
            skip=None if skip is None else skip.T,
            other_space=skip is not None or target != width,
        )
        return Foreign(plain)

    def write(self, plain: Plain, folder: Path, facts: Mapping[str, Any]) -> list[str]:
        """params.npz, without pickles."""
        import numpy

        if plain.rule.signed or not isinstance(plain.rule, Above | Positive | Gate):
            raise self.refuse(plain.rule, holds="thresholds, rectifiers and gates")
        if plain.skip is not None:
            raise CapabilityError("gemma_scope's params.npz has no place for a skip. Use saelens or circuit_tracer.")
        plain, notes = without_centre_and_gates(plain)
        assert isinstance(plain.rule, Above)
        if plain.other_space:
            notes.append("params.npz does not say that this predicts another site: tell those who read it")
        arrays = {
            "W_enc": plain.encoder.T,
            "W_dec": plain.decoder,
            "b_enc": plain.bias,
            "b_dec": plain.constant,
            "threshold": plain.rule.theta,
        }
        if plain.encoder.dtype != torch.float32:
            notes.append(f"{str(plain.encoder.dtype).removeprefix('torch.')} was written as float32, which numpy has")
        plain_arrays = {name: tensor.float().cpu().contiguous().numpy() for name, tensor in arrays.items()}
        numpy.savez(folder / WEIGHTS, allow_pickle=False, **plain_arrays)
        return notes


def without_centre_and_gates(plain: Plain) -> tuple[Plain, list[str]]:
    """A form with thresholds and nothing subtracted, and what was changed for that, one sentence each."""
    notes = []
    if isinstance(plain.rule, Gate):
        notes.append("gates were written as the thresholds that are equal to them")
    if plain.centred:
        notes.append("this format subtracts nothing before encoding: the encoder's bias carries that now")
    return plain.thresholded().uncentred(), notes


def _npz(path: Path) -> dict[str, Tensor]:
    import numpy

    try:
        with path.open("rb") as file, numpy.load(file) as data:  # refuses pickled objects by default
            return {name: torch.from_numpy(data[name]) for name in data.files}
    except Exception as error:  # numpy raises BadZipFile, ValueError, EOFError, zlib's and more for foreign bytes
        reason = str(error).split("\n")[0]
        raise StoreError(f"{path} cannot be read as plain arrays ({reason}). Fetch it again.") from None
