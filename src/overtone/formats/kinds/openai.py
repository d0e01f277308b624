"""OpenAI's sparse_autoencoder: one .pt file that holds a state dict. Read only.

Followed: the repository openai/sparse_autoencoder of June 2024. pre_bias (width,), encoder.weight (latents, width),
latent_bias (latents,), decoder.weight (width, latents); `activation` is ReLU, Identity or TopK (and its k). pre_bias is
subtracted. TopK files standardise each row by itself first; their codes are then multiplied by the row's standard
deviation, as overtone gives all codes in the units of the states.
"""

from pathlib import Path
from typing import Any

from overtone.core.catalogue import enrol
from overtone.core.errors import CapabilityError, StoreError
from overtone.formats.choices import Choices
from overtone.formats.format import Foreign, Format, read_weights_only, said, taken
from overtone.formats.plain import Best, Plain, Positive, Rule


@enrol("formats", "openai", source="openai/sparse_autoencoder", reads=True, writes=False)
class OpenAI(Format):
    """OpenAI's sparse autoencoders: one .pt file, read without running anything in it."""

    name = "openai"
    writes = False

    def recognises(self, place: Path) -> bool:
        """A .pt file of another name than dictionary_learning's, or a folder with nothing but one."""
        return _file(place) is not None

    def read(self, place: Path, choices: Choices) -> Foreign:
        """Its dictionary."""
        where = _file(place)
        if where is None:
            raise StoreError(f"{place} is no .pt file and holds not just one. Name the file.")
        data = read_weights_only(where)
        encoder = taken(data, "encoder.weight", (None, None), where)
        n_latents, width = encoder.shape
        rule = _rule(data, n_latents, where)
        plain = Plain(
            encoder=encoder,
            bias=taken(data, "latent_bias", (n_latents,), where),
            decoder=taken(data, "decoder.weight", (width, n_latents), where).T,
            constant=taken(data, "pre_bias", (width,), where),
            rule=rule,
            centred=True,
            rows="standardised" if data.get("activation") == "TopK" else "",
        )
        return Foreign(plain)


def _file(place: Path) -> Path | None:
    if place.is_file():
        return place if place.suffix == ".pt" and place.name != "ae.pt" else None
    found = list(place.glob("*.pt"))
    return found[0] if len(found) == 1 and found[0].name != "ae.pt" else None


def _rule(data: dict[str, Any], n_latents: int, where: Path) -> Rule:
    activation = data.get("activation", "ReLU")
    if activation == "ReLU":
        return Positive()
    if activation == "Identity":
        return Best(n_latents, signed=True)
    state = said(data, "activation_state_dict", dict, where, {})
    inner = state.get("postact_fn", "ReLU")
    if activation == "TopK" and inner == "ReLU":
        return Best(said(state, "k", int, where))
    raise CapabilityError(f"{where} has activation {activation!r} ({inner}); overtone reads ReLU, Identity and TopK.")
