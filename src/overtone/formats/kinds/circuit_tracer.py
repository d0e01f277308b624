"""circuit-tracer: one layer_N.safetensors per layer beside a config.yaml.

Followed: circuit-tracer 0.5.0. W_enc (latents, width), W_dec (latents, width), b_enc, b_dec; activation_function
.threshold for JumpReLU; W_skip (width, width) for skip transcoders. Nothing is subtracted. Before July 2025 W_dec was
stored as (width, latents); where the shape shows that, it is read so. Ranks cannot be held. circuit-tracer wants all
layers from 0 on in one folder: write them one after the other into the same folder.
"""

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from overtone.core.catalogue import enrol
from overtone.core.errors import CapabilityError, SettingError, SiteError, StoreError
from overtone.core.sites import Site
from overtone.formats.choices import Choices
from overtone.formats.format import Foreign, Format, nothing_else, read_safetensors, said, taken
from overtone.formats.kinds.gemma_scope import without_centre_and_gates
from overtone.formats.plain import Above, Gate, Plain, Positive, Rule

THETA = "activation_function.threshold"
LAYER = re.compile(r"layer_(\d+)\.safetensors")
CONFIG = "config.yaml"


@enrol("formats", "circuit_tracer", source="circuit-tracer 0.5.0", reads=True, writes=True)
class CircuitTracer(Format):
    """circuit-tracer transcoders: layer_N.safetensors files and config.yaml."""

    name = "circuit_tracer"
    collects = True

    def recognises(self, place: Path) -> bool:
        """layer_N.safetensors, or a folder that holds such files."""
        if place.is_dir():
            return bool(_layers(place))
        return LAYER.fullmatch(place.name) is not None and place.is_file()

    def read(self, place: Path, choices: Choices) -> Foreign:
        """The transcoder of one layer; facts hold `site`, `target` and `model` as config.yaml names them."""
        where = _one_layer(place)
        tensors = read_safetensors(where)
        nothing_else(tensors, ("W_enc", "W_dec", "b_enc", "b_dec", THETA, "W_skip"), where, "a transcoder")
        bias, constant = (taken(tensors, name, (None,), where) for name in ("b_enc", "b_dec"))
        n_latents, width = len(bias), len(constant)
        decoder = tensors.get("W_dec")
        if decoder is not None and n_latents != width and tuple(decoder.shape) == (width, n_latents):
            tensors["W_dec"] = decoder.T
        theta = THETA in tensors
        rule: Rule = Above(taken(tensors, THETA, (n_latents,), where, bound=True).float()) if theta else Positive()
        plain = Plain(
            encoder=taken(tensors, "W_enc", (n_latents, width), where),
            bias=bias,
            decoder=taken(tensors, "W_dec", (n_latents, width), where),
            constant=constant,
            rule=rule,
            skip=taken(tensors, "W_skip", (width, width), where) if "W_skip" in tensors else None,
            other_space=True,
        )
        return Foreign(plain, _facts(where))

    def write(self, plain: Plain, folder: Path, facts: Mapping[str, Any]) -> list[str]:
        """layer_N.safetensors, N the layer of facts["site"], and config.yaml."""
        from safetensors.torch import save_file

        if plain.rule.signed or not isinstance(plain.rule, Above | Positive | Gate):
            raise self.refuse(plain.rule, holds="transcoders with a rectifier, a threshold per latent or gates")
        if plain.decoder.shape[1] != plain.width:
            raise CapabilityError(
                f"circuit_tracer holds transcoders whose output is as wide as their input; this one maps {plain.width} "
                f"to {plain.decoder.shape[1]} numbers. Use saelens or overtone."
            )
        layer = _layer_of(facts)
        rectified = isinstance(plain.rule, Positive)
        plain, notes = without_centre_and_gates(plain)
        assert isinstance(plain.rule, Above)
        tensors = {"W_enc": plain.encoder, "W_dec": plain.decoder, "b_enc": plain.bias, "b_dec": plain.constant}
        if not rectified:
            tensors[THETA] = plain.rule.theta.clamp(min=0)  # circuit-tracer does not rectify what passes the threshold
        if plain.skip is not None:
            tensors["W_skip"] = plain.skip
        path = folder / f"layer_{layer}.safetensors"
        save_file({name: tensor.contiguous().cpu() for name, tensor in tensors.items()}, path)
        (folder / CONFIG).write_text(_config(facts), encoding="utf-8")
        return notes

    def beside(self, place: Path) -> Path:
        """overtone.layer_N.json: circuit-tracer counts the files that begin with layer_."""
        path = _one_layer(place)
        return path.with_name(f"overtone.{path.stem}.json")


def _layers(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if LAYER.fullmatch(path.name)) if folder.is_dir() else []


def _one_layer(place: Path) -> Path:
    if place.is_file():
        return place
    found = _layers(place)
    if len(found) == 1:
        return found[0]
    if not found:
        raise StoreError(f"{place} holds no layer_N.safetensors: that is not circuit_tracer's layout. Name another.")
    named = ", ".join(path.name for path in found[:3]) + (", ..." if len(found) > 3 else "")
    raise SettingError(f"{place} holds {len(found)} layers ({named}). Name one: {place}/{found[0].name}.")


def _layer_of(facts: Mapping[str, Any]) -> int:
    if not facts.get("site"):
        raise SettingError(
            "circuit_tracer names its files by layer, and the site is not known. Give it: --site mlp_in.3 (in Python "
            "facts={'site': 'mlp_in.3'})."
        )
    return Site.parse(facts["site"]).layer


def _config(facts: Mapping[str, Any]) -> str:
    """config.yaml; every JSON value is a YAML value."""
    source = Site.parse(facts["site"]).lens_name.split(".", 2)[-1]
    target = facts.get("target")
    values = {
        "model_name": facts.get("model") or "unknown",
        "model_kind": "transcoder_set",
        "feature_input_hook": source,
        "feature_output_hook": Site.parse(target).lens_name.split(".", 2)[-1] if target else source,
        "scan": facts.get("model") or "overtone",
    }
    return "".join(f"{key}: {json.dumps(value)}\n" for key, value in values.items())


def _facts(where: Path) -> dict[str, Any]:
    import yaml

    path, layer = where.with_name(CONFIG), int(found[1]) if (found := LAYER.fullmatch(where.name)) else 0
    if not path.is_file():
        return {}
    try:
        config = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
    except (OSError, ValueError, yaml.YAMLError) as error:
        reason = str(error).split("\n")[0]
        raise StoreError(f"{path} cannot be read as YAML ({reason}). Fetch or write it again.") from None
    if not isinstance(config, dict):
        raise StoreError(f"{path} holds no YAML mapping. Fetch or write it again.")
    model = said(config, "model_name", str, path, "")
    facts: dict[str, Any] = {"model": model} if model else {}
    for ours, theirs in (("site", "feature_input_hook"), ("target", "feature_output_hook")):
        try:
            facts[ours] = str(Site.parse(f"blocks.{layer}.{config[theirs]}"))
        except (KeyError, SiteError):
            continue
    return facts
