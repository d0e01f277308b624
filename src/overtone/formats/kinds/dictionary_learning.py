"""dictionary_learning: a folder with ae.pt and config.json; written with ae.safetensors instead of ae.pt.

Followed: dictionary-learning 0.1.0 and its repository of August 2025. config.json names the class under trainer
.dict_class; the weights are that class's state dict. ae.pt is read without running anything in it. Their
`from_pretrained` reads ae.pt only, which is a pickle, and overtone writes none: it writes the same state dict as
ae.safetensors, which `CLASS(...).load_state_dict(safetensors.torch.load_file("ae.safetensors"))` takes.

AutoEncoder (rectifier, `bias` subtracted), AutoEncoderNew (nothing subtracted), GatedAutoEncoder, JumpReluAutoEncoder
(nothing subtracted), AutoEncoderTopK, BatchTopKSAE and MatryoshkaBatchTopKSAE (one threshold at inference). Their
AutoEncoder is brought to unit rows when it is loaded, while its file keeps the trained scale: where rows are not of
length 1 the reader asks which scale codes shall have.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from overtone.core.artifacts import write_json
from overtone.core.catalogue import enrol
from overtone.core.errors import CapabilityError, SettingError
from overtone.formats.choices import Choices, spelled
from overtone.formats.format import (
    Foreign,
    Format,
    nothing_else,
    read_json,
    read_safetensors,
    read_weights_only,
    said,
    taken,
)
from overtone.formats.plain import Above, Best, Gate, Plain, Positive, Pursuit, Rule

PICKLE, WEIGHTS, CONFIG = "ae.pt", "ae.safetensors", "config.json"

# Per class: names of encoder, bias, decoder, constant; are the matrices stored as by nn.Linear; is the constant
# subtracted.
_LINEAR = ("encoder.weight", "encoder.bias", "decoder.weight")
_MATRIX = ("W_enc", "b_enc", "W_dec", "b_dec")
LAYOUT: dict[str, tuple[tuple[str, ...], bool, bool]] = {
    "AutoEncoder": ((*_LINEAR, "bias"), True, True),
    "AutoEncoderNew": ((*_LINEAR, "decoder.bias"), True, False),
    "AutoEncoderTopK": ((*_LINEAR, "b_dec"), True, True),
    "BatchTopKSAE": ((*_LINEAR, "b_dec"), True, True),
    "GatedAutoEncoder": (("encoder.weight", "gate_bias", "decoder.weight", "decoder_bias"), True, True),
    "JumpReluAutoEncoder": (_MATRIX, False, False),
    "MatryoshkaBatchTopKSAE": (_MATRIX, False, True),
}

_BUDGET = ("k", "threshold")
MORE: dict[str, tuple[str, ...]] = {  # what else a class's state dict holds
    "AutoEncoderTopK": _BUDGET,
    "BatchTopKSAE": _BUDGET,
    "GatedAutoEncoder": ("r_mag", "mag_bias"),
    "JumpReluAutoEncoder": ("threshold",),
    "MatryoshkaBatchTopKSAE": (*_BUDGET, "group_sizes"),
}


@enrol("formats", "dictionary_learning", source="dictionary-learning 0.1.0", reads=True, writes=True)
class DictionaryLearning(Format):
    """dictionary_learning folder: config.json and ae.pt; written as ae.safetensors, never as a pickle."""

    name = "dictionary_learning"

    def recognises(self, place: Path) -> bool:
        """config.json beside ae.pt or ae.safetensors, or such a file itself."""
        folder = place.parent if place.name in (PICKLE, WEIGHTS) else place
        return (folder / CONFIG).is_file() and any((folder / name).is_file() for name in (PICKLE, WEIGHTS))

    def read(self, place: Path, choices: Choices) -> Foreign:
        """Its dictionary; facts hold the trainer's part of config.json."""
        folder = place.parent if place.is_file() else place
        trainer = said(read_json(folder / CONFIG), "trainer", dict, folder / CONFIG, {})
        kind = said(trainer, "dict_class", str, folder / CONFIG, "")
        if kind not in LAYOUT:
            raise CapabilityError(f"{folder} holds dictionary_learning's {kind!r}; overtone reads {', '.join(LAYOUT)}.")
        where = folder / (WEIGHTS if (folder / WEIGHTS).is_file() else PICKLE)
        tensors = read_safetensors(where) if where.name == WEIGHTS else read_weights_only(where)
        plain = _plain(kind, tensors, trainer, where)
        facts: dict[str, Any] = {"dictionary_learning": _plain_data(trainer)}
        if model := said(trainer, "lm_name", str, folder / CONFIG, ""):
            facts["model"] = model
        return Foreign(_in_scale(plain, kind, choices, where), facts)

    def write(self, plain: Plain, folder: Path, facts: Mapping[str, Any]) -> list[str]:
        """config.json and ae.safetensors."""
        from safetensors.torch import save_file

        if plain.other_space or plain.skip is not None:
            raise CapabilityError("dictionary_learning holds no transcoders. Use saelens, circuit_tracer or overtone.")
        kind, plain, notes = _class_of(plain, _k(facts), self)
        if kind == "BatchTopKSAE" and _trained_k(facts) != _k(facts):
            notes.append(f"{kind} has room for a whole k only, which it does not encode by: {_k(facts)} was written")
        names, transposed, _ = LAYOUT[kind]
        encoder, decoder = (plain.encoder, plain.decoder.T) if transposed else (plain.encoder.T, plain.decoder)
        tensors = dict(zip(names, (encoder, plain.bias, decoder, plain.constant), strict=True))
        tensors |= _more(kind, plain, facts)
        save_file({name: tensor.contiguous().cpu() for name, tensor in tensors.items()}, folder / WEIGHTS)
        write_json(folder / CONFIG, {"trainer": _trainer(kind, plain, facts), "buffer": {}})
        call = f'{kind}(...).load_state_dict(safetensors.torch.load_file("{WEIGHTS}"))'
        return [*notes, f"no pickle was written: load {WEIGHTS} in dictionary_learning with {call}"]


def _plain(kind: str, tensors: dict[str, Any], trainer: dict[str, Any], where: Path) -> Plain:
    names, transposed, centred = LAYOUT[kind]
    nothing_else(tensors, (*names, *MORE.get(kind, ())), where, f"a {kind}")
    encoder = taken(tensors, names[0], (None, None), where)
    n_latents, width = encoder.shape if transposed else encoder.shape[::-1]
    decoder = taken(tensors, names[2], (width, n_latents) if transposed else (n_latents, width), where)
    return Plain(
        encoder=encoder if transposed else encoder.T,
        bias=taken(tensors, names[1], (n_latents,), where),
        decoder=decoder.T if transposed else decoder,
        constant=taken(tensors, names[3], (width,), where),
        rule=_rule(kind, tensors, trainer, n_latents, where),
        centred=centred,
    )


def _rule(kind: str, tensors: dict[str, Any], trainer: dict[str, Any], n_latents: int, where: Path) -> Rule:
    if kind == "AutoEncoderTopK":
        k = tensors.get("k")
        k = k.item() if isinstance(k, Tensor) and k.numel() == 1 else k
        return Best(said(trainer if k is None else {"k": k}, "k", int, where.with_name(CONFIG) if k is None else where))
    if kind in ("BatchTopKSAE", "MatryoshkaBatchTopKSAE"):
        theta = float(taken(tensors, "threshold", (), where, bound=True))
        return Above(torch.full((n_latents,), theta)) if theta > 0 else Positive()  # below 0 it cuts nothing
    if kind == "JumpReluAutoEncoder":
        return Above(taken(tensors, "threshold", (n_latents,), where, bound=True).float())
    if kind == "GatedAutoEncoder":
        return Gate(taken(tensors, "r_mag", (n_latents,), where), taken(tensors, "mag_bias", (n_latents,), where))
    return Positive()


def _in_scale(plain: Plain, kind: str, choices: Choices, where: Path) -> Plain:
    """The scale of codes that was chosen, where the file and its loader differ."""
    if kind == "AutoEncoder" and not plain.unit_rows and choices.unit_rows is None:
        raise SettingError(
            f"the decoder rows in {where} are not of length 1: dictionary_learning rescales them when it loads the "
            f"file, and the codes with them. Choose with {spelled('unit_rows')}: true (codes as "
            "dictionary_learning gives them) or false (codes as they were trained)."
        )
    return plain.rescaled() if choices.unit_rows and not isinstance(plain.rule, Best) else plain


def _k(facts: Mapping[str, Any]) -> int | None:
    """Active latents per row while training, where that is known: a whole number that BatchTopKSAE wants to have."""
    k = _trained_k(facts)
    return max(1, round(k)) if k else None


def _trained_k(facts: Mapping[str, Any]) -> int | float | None:
    return facts.get("k") or (facts.get("dictionary_learning") or {}).get("k")


def _class_of(plain: Plain, k: int | None, how: Format) -> tuple[str, Plain, list[str]]:
    """The class that holds it, the form that class wants, and notes."""
    rule = plain.rule
    if rule.signed or isinstance(rule, Pursuit):
        raise how.refuse(rule, holds="rectifiers, gates, thresholds and ranks within each row")
    if isinstance(rule, Positive):
        return ("AutoEncoder" if plain.centred and plain.unit_rows else "AutoEncoderNew"), *_uncentred_if(
            plain, plain.centred and not plain.unit_rows
        )
    if isinstance(rule, Above) and plain.centred and k and bool((rule.theta == rule.theta[0]).all()):
        return "BatchTopKSAE", plain, []
    if isinstance(rule, Above):
        return "JumpReluAutoEncoder", *_uncentred_if(plain, plain.centred)
    kind = "AutoEncoderTopK" if isinstance(rule, Best) else "GatedAutoEncoder"
    if plain.centred:
        return kind, plain, []
    return kind, plain.centred_form(), [f"{kind} subtracts its constant: the encoder's bias was changed accordingly"]


def _uncentred_if(plain: Plain, needed: bool) -> tuple[Plain, list[str]]:
    if not needed:
        return plain, []
    return plain.uncentred(), ["this class subtracts nothing before encoding: the encoder's bias carries that now"]


def _more(kind: str, plain: Plain, facts: Mapping[str, Any]) -> dict[str, Tensor]:
    """What a class's state dict holds beside matrices and biases."""
    if isinstance(plain.rule, Best):
        return {"k": torch.tensor(plain.rule.k, dtype=torch.int32), "threshold": torch.tensor(-1.0)}
    if isinstance(plain.rule, Above) and kind == "BatchTopKSAE":
        return {"k": torch.tensor(_k(facts), dtype=torch.int32), "threshold": plain.rule.theta[0].clone()}
    if isinstance(plain.rule, Above):
        return {"threshold": plain.rule.theta}
    if isinstance(plain.rule, Gate):
        return {"r_mag": plain.rule.log_ratio, "mag_bias": plain.rule.magnitude_bias}
    return {}


def _trainer(kind: str, plain: Plain, facts: Mapping[str, Any]) -> dict[str, Any]:
    trainer = {
        **(facts.get("dictionary_learning") or {}),
        "dict_class": kind,
        "activation_dim": plain.width,
        "dict_size": plain.n_latents,
    }
    if isinstance(plain.rule, Best) or kind == "BatchTopKSAE":
        trainer["k"] = plain.rule.k if isinstance(plain.rule, Best) else _k(facts)
    if facts.get("model"):
        trainer["lm_name"] = facts["model"]
    return trainer


def _plain_data(trainer: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in trainer.items() if isinstance(value, str | int | float | bool | None)}
