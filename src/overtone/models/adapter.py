"""Where the sites of an architecture are: an `Adapter` holds module paths, and nothing that runs.

`by_model_type` finds one in the catalogue (`adapters/`, one file per family); `generic` guesses one by structure.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from overtone.core.catalogue import entries
from overtone.core.errors import ModelError, nearest
from overtone.core.sites import KINDS

if TYPE_CHECKING:
    from torch import nn


PARALLEL = "attention and MLP run side by side on the block's input, so there is no stream between them."


@dataclass(frozen=True)
class Adapter:
    """Module paths of one architecture: `layers`, `final_norm` and `head` start at the model, all others at a block.

    layers: the list of blocks. attention, mlp: the two halves of a block ("" if it has none to tell apart).
    final_norm: one path or several, applied in turn between the last block and the head ("" = none).
    head: from normed states to logits ("" = the model has no vocabulary head).
    attn_out, mlp_out: the module whose OUTPUT is added to the residual stream (default: attention, mlp).
    attn_heads, mlp_in, mlp_neurons: the module whose INPUT is the site (mlp_in defaults to mlp).
    residual_mid: the module whose OUTPUT is the stream between the halves; "" = stream + attn_out, as in every
    sequential block without a norm on the stream.
    absent: kind of site, "unembed" or "padding" -> why this architecture has none. is_causal: False for encoders.
    position_offset: what the model adds to position ids.
    logit_scale, softcap: what the model does to the head's output y: softcap * tanh(logit_scale * y / softcap).
    """

    layers: str
    attention: str = ""
    mlp: str = ""
    final_norm: str | tuple[str, ...] = ""
    head: str = ""
    attn_out: str = ""
    mlp_out: str = ""
    attn_heads: str = ""
    mlp_in: str = ""
    mlp_neurons: str = ""
    residual_mid: str = ""
    absent: Mapping[str, str] = field(default_factory=dict)
    is_causal: bool = True
    position_offset: int = 0
    softcap: float | None = None
    logit_scale: float = 1.0

    def path(self, kind: str) -> str:
        """Path from a block to the module that carries a kind of site; "" if the adapter names none."""
        default = {"attn_out": self.attention, "mlp_out": self.mlp, "mlp_in": self.mlp}
        return getattr(self, kind, "") or default.get(kind, "")

    @property
    def block_paths(self) -> dict[str, str]:
        """The paths that start at a block, by field."""
        named = {name: getattr(self, name, "") for name in ("attention", "mlp", *KINDS)}
        return {name: path for name, path in named.items() if path}

    @property
    def readout(self) -> tuple[str, ...]:
        """Paths from the last block's output to the logits, in the order they apply."""
        norms = (self.final_norm,) if isinstance(self.final_norm, str) else self.final_norm
        return tuple(path for path in (*norms, self.head) if path)


def submodule(root: nn.Module, path: str, what: str) -> nn.Module:
    """The module at a dotted path. Raises ModelError naming `what`, the path and the nearest one there is."""
    try:
        return root.get_submodule(path)
    except AttributeError:
        names = [name for name, _ in root.named_modules() if name]
        raise ModelError(
            f"{what}={path!r} is no module of {type(root).__name__}.{nearest(path, names)} "
            f"It has: {', '.join(name for name, _ in root.named_children())}."
        ) from None


def first_path(root: nn.Module, *paths: str) -> str:
    """The first of several paths that is a module of `root`, or "" if none is."""
    known = {name for name, _ in root.named_modules()}
    return next((path for path in paths if path in known), "")


def by_model_type(model: nn.Module) -> Adapter | None:
    """The adapter that the catalogue holds for `model.config.model_type`, or None."""
    model_type = getattr(getattr(model, "config", None), "model_type", "")
    for entry in entries("adapters").values():
        if model_type in entry.facts["model_types"]:
            return entry.thing(model)
    return None
