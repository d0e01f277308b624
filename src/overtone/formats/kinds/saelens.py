"""SAELens: a folder with cfg.json and sae_weights.safetensors, as version 6 writes it.

Followed: sae-lens 6.54.12. W_enc (width, latents), W_dec (latents, target width), b_enc, b_dec; `jumprelu` has
threshold, `gated` has b_gate, r_mag and b_mag instead of b_enc, skip transcoders W_skip (target width, width).
`apply_b_dec_to_input` says whether the constant is subtracted; without it in cfg.json the reader asks.
BatchTopK and its kin are `jumprelu` with one threshold, as SAELens saves its own; thresholds stay in float32, and
cfg.json then names float32, because SAELens brings every tensor to that dtype. There is no transcoder with a rank.
Where `normalize_activations` says that each row is normalised by itself, SAELens' codes are in the row's units;
overtone multiplies them by the row's size, as it gives all codes in the units of the states.
"""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from overtone.core.artifacts import library_version, write_json
from overtone.core.catalogue import enrol
from overtone.core.errors import CapabilityError, SettingError, SiteError
from overtone.core.sites import Site, parse_sites
from overtone.formats.choices import Choices, spelled
from overtone.formats.format import Foreign, Format, nothing_else, read_json, read_safetensors, said, taken
from overtone.formats.plain import Above, Best, Gate, Plain, Positive, Pursuit, Rule

CFG, WEIGHTS = "cfg.json", "sae_weights.safetensors"
LAYOUT = "6.54.12"  # SAELens reads a folder without a version of 6.0 or later by the rules of older ones
ROWWISE = {"none": "", "layer_norm": "standardised", "constant_norm_rescale": "fixed_norm"}
PURSUIT = "matching_pursuit"
TRANSCODERS = ("transcoder", "skip_transcoder", "jumprelu_transcoder", "jumprelu_skip_transcoder")
READ = ("standard", "gated", "topk", "abstopk", "jumprelu", PURSUIT, *TRANSCODERS)


@enrol("formats", "saelens", source="sae-lens 6.54.12", reads=True, writes=True)
class SAELens(Format):
    """SAELens folder: cfg.json and sae_weights.safetensors."""

    name = "saelens"
    rowwise = True

    def recognises(self, place: Path) -> bool:
        """cfg.json beside sae_weights.safetensors."""
        return (place / CFG).is_file() and (place / WEIGHTS).is_file()

    def read(self, place: Path, choices: Choices) -> Foreign:
        """Its dictionary; facts hold `site`, `model` and SAELens' own metadata."""
        cfg, where = _modern(read_json(place / CFG), place / CFG), place / WEIGHTS
        tensors = read_safetensors(where)
        architecture = cfg["architecture"]
        if architecture not in READ:
            raise CapabilityError(
                f"{place} is of SAELens' architecture {architecture!r}; overtone reads {', '.join(READ)}."
            )
        nothing_else(tensors, _names(architecture, tensors), where, f"the architecture {architecture!r}")
        width, n_latents = (said(cfg, name, int, place / CFG) for name in ("d_in", "d_sae"))
        target = said(cfg, "d_out", int, place / CFG, width) if architecture in TRANSCODERS else width
        gated = architecture == "gated"
        if architecture == PURSUIT:  # no encoder of its own
            tensors |= {"W_enc": taken(tensors, "W_dec", (n_latents, width), where).T, "b_enc": torch.zeros(n_latents)}
        plain = Plain(
            encoder=taken(tensors, "W_enc", (width, n_latents), where).T,
            bias=taken(tensors, "b_gate" if gated else "b_enc", (n_latents,), where),
            decoder=taken(tensors, "W_dec", (n_latents, target), where),
            constant=taken(tensors, "b_dec", (target,), where),
            rule=_rule(architecture, cfg, tensors, n_latents, where),
            centred=architecture not in TRANSCODERS and _centred(cfg, choices, place),
            skip=taken(tensors, "W_skip", (target, width), where) if "skip" in architecture else None,
            other_space=architecture in TRANSCODERS,
        )
        return Foreign(_scaled(plain, cfg, choices, place), _facts(cfg, place / CFG))

    def write(self, plain: Plain, folder: Path, facts: Mapping[str, Any]) -> list[str]:
        """cfg.json and sae_weights.safetensors."""
        from safetensors.torch import save_file

        architecture = _architecture(plain)
        if architecture is None:
            raise self.refuse(plain.rule, holds=_HOLDS[plain.other_space])
        gated = isinstance(plain.rule, Gate)
        tensors = {
            "W_enc": plain.encoder.T,
            "b_gate" if gated else "b_enc": plain.bias,
            "W_dec": plain.decoder,
            "b_dec": plain.constant,
        }
        if isinstance(plain.rule, Pursuit):
            tensors = {name: tensors[name] for name in ("W_dec", "b_dec")}
        if isinstance(plain.rule, Above):
            tensors["threshold"] = plain.rule.theta
        if isinstance(plain.rule, Gate):
            tensors |= {"r_mag": plain.rule.log_ratio, "b_mag": plain.rule.magnitude_bias}
        if plain.skip is not None:
            tensors["W_skip"] = plain.skip
        save_file({name: tensor.contiguous().cpu() for name, tensor in tensors.items()}, folder / WEIGHTS)
        write_json(folder / CFG, _cfg(plain, architecture, facts))
        return []


_HOLDS = {
    False: "rectifiers, gates, thresholds, ranks within each row, signed ones too, and centred matching pursuit",
    True: "transcoders with a rectifier or a threshold per latent",
}


def _architecture(plain: Plain) -> str | None:
    rule, skip = plain.rule, "" if plain.skip is None else "skip_"
    if plain.other_space or skip:
        own = {Positive: "", Above: "jumprelu_"}.get(type(rule))
        return None if own is None or rule.signed or plain.centred else f"{own}{skip}transcoder"
    if isinstance(rule, Best):
        return "abstopk" if rule.signed else "topk"
    if isinstance(rule, Pursuit):
        return PURSUIT if plain.centred else None  # SAELens decodes without the constant if it does not subtract it
    return None if rule.signed else {Positive: "standard", Above: "jumprelu", Gate: "gated"}[type(rule)]


def _cfg(plain: Plain, architecture: str, facts: Mapping[str, Any]) -> dict[str, Any]:
    """SAELens' configuration; metadata that came from SAELens goes back as it came."""
    dtype = torch.float32 if isinstance(plain.rule, Above) else plain.encoder.dtype
    own = {"sae_lens_version": LAYOUT, "sae_lens_training_version": None, "written_by": f"overtone {library_version()}"}
    if facts.get("model"):
        own["model_name"] = facts["model"]
    if facts.get("site"):
        own["hook_name"] = "+".join(site.lens_name for site in parse_sites(facts["site"]))
    if facts.get("target"):
        own["hook_name_out"] = Site.parse(facts["target"]).lens_name
    kept = facts.get("saelens") or {}
    cfg = {
        "d_in": plain.width,
        "d_sae": plain.n_latents,
        "dtype": str(dtype).removeprefix("torch."),
        "device": "cpu",
        "apply_b_dec_to_input": plain.centred,
        "normalize_activations": next(theirs for theirs, ours in ROWWISE.items() if ours == plain.rows),
        "reshape_activations": kept.get("reshape_activations", "none"),
        "metadata": {**own, **kept.get("metadata", {})},
        "architecture": architecture,
    }
    if isinstance(plain.rule, Pursuit):
        cfg |= {"max_iterations": plain.rule.steps, "residual_threshold": 0.0, "stop_on_duplicate_support": False}
    if isinstance(plain.rule, Best):
        cfg |= {"k": plain.rule.k, "rescale_acts_by_decoder_norm": False}
    if plain.other_space or plain.skip is not None:
        cfg["d_out"] = plain.decoder.shape[1]
    return cfg


def _modern(cfg: dict[str, Any], where: Path) -> dict[str, Any]:
    """A configuration of any version by the names of version 6."""
    activation = cfg.get("activation_fn", cfg.get("activation_fn_str"))
    architecture = cfg.get("architecture", "standard")
    k = cfg.get("k", said(cfg, "activation_fn_kwargs", dict, where, {}).get("k"))
    if activation not in (None, "relu", "topk"):
        raise CapabilityError(f"{where} says activation_fn={activation!r}; overtone reads 'relu' and 'topk'.")
    if activation == "topk" and architecture == "standard":
        architecture = "topk"
    old = {} if activation is None else {"rescale_acts_by_decoder_norm": False}  # before 6 nothing was ranked by length
    place = {"hook_name": cfg["hook_point"]} if "hook_point" in cfg else {}
    return {**old, **cfg, **place, "architecture": architecture, "k": k}


def _rule(architecture: str, cfg: dict[str, Any], tensors: dict[str, Any], n_latents: int, where: Path) -> Rule:
    if architecture in ("topk", "abstopk"):
        return Best(said(cfg, "k", int, where.parent / CFG), signed=architecture == "abstopk")
    if architecture.startswith("jumprelu"):
        return Above(taken(tensors, "threshold", (n_latents,), where, bound=True).float())
    if architecture == PURSUIT:
        return _pursuit(cfg, where)
    if architecture == "gated":
        return Gate(taken(tensors, "r_mag", (n_latents,), where), taken(tensors, "b_mag", (n_latents,), where))
    return Positive()


def _pursuit(cfg: dict[str, Any], where: Path) -> Pursuit:
    """A fixed number of steps; rules that stop rows earlier, by an absolute residual or a support, overtone has not."""
    early = {"residual_threshold": cfg.get("residual_threshold", 1e-2)}
    early["stop_on_duplicate_support"] = cfg.get("stop_on_duplicate_support", True)
    if any(early.values()) or not cfg.get("apply_b_dec_to_input", True):
        raise CapabilityError(
            f"{where.parent / CFG} says {early}: overtone reads matching pursuit of a fixed number of steps, with the "
            "constant subtracted (0, false, and apply_b_dec_to_input true)."
        )
    return Pursuit(said(cfg, "max_iterations", int, where.parent / CFG, cfg["d_in"]))


def _names(architecture: str, tensors: Mapping[str, torch.Tensor]) -> set[str]:
    """The tensors that an architecture has. Old files carry a scaling factor, which does nothing if it is ones."""
    own = {PURSUIT: set(), "gated": {"W_enc", "b_gate", "r_mag", "b_mag"}}
    names = {"W_dec", "b_dec"} | own.get(architecture, {"W_enc", "b_enc"})
    names |= {"threshold"} if architecture.startswith("jumprelu") else set()
    names |= {"W_skip"} if "skip" in architecture else set()
    factor = tensors.get("scaling_factor")
    return names | ({"scaling_factor"} if factor is not None and bool((factor == 1).all()) else set())


def _centred(cfg: dict[str, Any], choices: Choices, place: Path) -> bool:
    centred = said(cfg, "apply_b_dec_to_input", bool, place / CFG, choices.apply_b_dec_to_input)
    if centred is None:
        raise SettingError(
            f"{place / CFG} does not say whether b_dec is subtracted from the input. Choose with "
            f"{spelled('apply_b_dec_to_input')}: true (Bricken et al. 2023, and what SAELens assumes of old "
            "files) or false (Anthropic's April 2024 recipe, Gemma Scope)."
        )
    return centred


def _scaled(plain: Plain, cfg: dict[str, Any], choices: Choices, place: Path) -> Plain:
    """Input scale and rank by row length, both of which other formats express in the weights."""
    norm = cfg.get("normalize_activations") or "none"
    if norm in (True, "expected_average_only_in"):
        if choices.norm_scale is None:
            raise SettingError(
                f"{place / CFG} says normalize_activations={norm!r}, and the factor is not in the file. Choose with "
                f"{spelled('norm_scale')}: 1 if it is folded into the weights already, or the factor itself "
                "(sqrt(width) over the mean norm of the states it was trained on)."
            )
        plain = plain if choices.norm_scale == 1 else plain.scaled_input(choices.norm_scale)
    elif isinstance(norm, str) and norm in ROWWISE:
        plain = replace(plain, rows=ROWWISE[norm])
    else:
        raise CapabilityError(
            f"{place / CFG} says normalize_activations={norm!r}, which overtone has no part for. Let SAELens fold it "
            "into the weights and save the folder again."
        )
    if not isinstance(plain.rule, Best):
        return plain
    name = "rescale_acts_by_decoder_norm"
    by_norm = said(cfg, name, bool, place / CFG, choices.rescale_acts_by_decoder_norm)
    if by_norm is None and not plain.unit_rows:
        raise SettingError(
            f"{place / CFG} does not say by what latents are ranked, and the decoder's rows are not of length 1. "
            f"Choose with {spelled(name)}: true (value times row length) or false (value)."
        )
    return plain.rescaled() if by_norm and not _exactly_unit(plain.decoder) else plain


def _exactly_unit(rows: torch.Tensor) -> bool:
    return bool((rows.norm(dim=1) == 1).all())


def _facts(cfg: dict[str, Any], where: Path) -> dict[str, Any]:
    old = {k: cfg[k] for k in ("model_name", "hook_name") if cfg.get(k)}
    metadata = said(cfg, "metadata", dict, where, {}) or old
    kept = {"metadata": metadata, "reshape_activations": cfg.get("reshape_activations", "none")}
    facts: dict[str, Any] = {"saelens": kept}
    if model := said(metadata, "model_name", str, where, ""):
        facts["model"] = model
    for ours, theirs in (("site", "hook_name"), ("target", "hook_name_out")):
        try:
            facts[ours] = str(Site.parse(metadata[theirs]))
        except (KeyError, TypeError, SiteError):
            continue  # a place that overtone has no name for stays in the metadata
    return facts
