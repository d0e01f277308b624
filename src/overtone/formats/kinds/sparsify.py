"""sparsify (EleutherAI): a folder with cfg.json and sae.safetensors.

Followed: eai-sparsify 1.3.3. encoder.weight (latents, width), encoder.bias, W_dec (latents, width), b_dec (width,) and,
with skip_connection, W_skip (width, width). Always a rank: the k largest of max(u, 0) in each row; the constant is
subtracted unless `transcode`. Input and output have the same width. A rectifier is written as a rank that keeps all.
"""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from overtone.core.artifacts import write_json
from overtone.core.catalogue import enrol
from overtone.core.errors import CapabilityError
from overtone.formats.choices import Choices
from overtone.formats.format import Foreign, Format, nothing_else, read_json, read_safetensors, said, taken
from overtone.formats.plain import Best, Plain, Positive

CFG, WEIGHTS = "cfg.json", "sae.safetensors"


@enrol("formats", "sparsify", source="eai-sparsify 1.3.3", reads=True, writes=True)
class Sparsify(Format):
    """sparsify folder: cfg.json and sae.safetensors."""

    name = "sparsify"

    def recognises(self, place: Path) -> bool:
        """cfg.json beside sae.safetensors."""
        return (place / CFG).is_file() and (place / WEIGHTS).is_file()

    def read(self, place: Path, choices: Choices) -> Foreign:
        """Its dictionary; facts hold sparsify's own configuration."""
        cfg, where = read_json(place / CFG), place / WEIGHTS
        activation = cfg.get("activation", "topk")
        if activation != "topk" or cfg.get("signed"):
            raise CapabilityError(
                f"{place / CFG} says activation={activation!r}, signed={bool(cfg.get('signed'))}; overtone reads "
                "'topk' that is not signed."
            )
        tensors, width = read_safetensors(where), said(cfg, "d_in", int, place / CFG)
        n_latents = width * said(cfg, "expansion_factor", int, place / CFG, 32)
        if cfg.get("num_latents") != 0:  # 0 leaves it to the factor
            n_latents = said(cfg, "num_latents", int, place / CFG, n_latents)
        transcode, skips = (said(cfg, name, bool, place / CFG, False) for name in ("transcode", "skip_connection"))
        names = ("encoder.weight", "encoder.bias", "W_dec", "b_dec", *(("W_skip",) if skips else ()))
        nothing_else(tensors, names, where, f"a dictionary with skip_connection={skips}")
        plain = Plain(
            encoder=taken(tensors, "encoder.weight", (n_latents, width), where),
            bias=taken(tensors, "encoder.bias", (n_latents,), where),
            decoder=taken(tensors, "W_dec", (n_latents, width), where),
            constant=taken(tensors, "b_dec", (width,), where),
            rule=Best(said(cfg, "k", int, place / CFG)),
            centred=not transcode,
            skip=taken(tensors, "W_skip", (width, width), where) if skips else None,
            other_space=transcode,
        )
        return Foreign(plain, {"sparsify": cfg})

    def write(self, plain: Plain, folder: Path, facts: Mapping[str, Any]) -> list[str]:
        """cfg.json and sae.safetensors."""
        from safetensors.torch import save_file

        if plain.rule.signed or not isinstance(plain.rule, Best | Positive):
            raise self.refuse(plain.rule, holds="ranks within each row and rectifiers")
        if plain.decoder.shape[1] != plain.width:
            raise CapabilityError(
                f"sparsify holds dictionaries whose output is as wide as their input; this one maps {plain.width} to "
                f"{plain.decoder.shape[1]} numbers. Use saelens or overtone."
            )
        notes = []
        if isinstance(plain.rule, Positive):
            plain = replace(plain, rule=Best(plain.n_latents))
            notes.append(f"the rectifier was written as a rank that keeps all {plain.n_latents} latents (slow there)")
        if not plain.centred and not plain.other_space:
            plain = plain.centred_form()
            notes.append("sparsify subtracts b_dec before encoding: the encoder's bias was changed to make up for that")
        tensors = {
            "encoder.weight": plain.encoder,
            "encoder.bias": plain.bias,
            "W_dec": plain.decoder,
            "b_dec": plain.constant,
        }
        if plain.skip is not None:
            tensors["W_skip"] = plain.skip
        save_file({name: tensor.contiguous().cpu() for name, tensor in tensors.items()}, folder / WEIGHTS)
        write_json(folder / CFG, {**_DEFAULTS, **(facts.get("sparsify") or {}), **_cfg(plain)})
        return notes


_DEFAULTS = {"expansion_factor": 32, "multi_topk": False}


def _cfg(plain: Plain) -> dict[str, Any]:
    assert isinstance(plain.rule, Best)
    return {
        "activation": "topk",
        "num_latents": plain.n_latents,
        "k": plain.rule.k,
        "normalize_decoder": plain.unit_rows,
        "skip_connection": plain.skip is not None,
        "transcode": plain.other_space,
        "d_in": plain.width,
    }
