"""Sites: named places in a network where states are read and written.

`Site("residual", layer=6)` prints and parses as ``residual.6``. Layers count blocks from 0; ``residual.L`` is the
state AFTER block L and BEFORE any final norm. TransformerLens hook names are accepted and kept as an alias. Where
states of several models lie beside each other, a site begins with a name for its model: ``chat:residual.6``.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field, replace

from overtone.core.errors import SiteError, nearest

KINDS = {
    "residual": "residual stream after the block",
    "residual_mid": "residual stream between attention and MLP",
    "attn_out": "what attention adds to the residual stream",
    "attn_heads": "input of the attention output projection, heads side by side",
    "mlp_in": "input of the MLP, after its norm",
    "mlp_out": "what the MLP adds to the residual stream",
    "mlp_neurons": "input of the MLP's down projection",
    "embedding": "residual stream before the first block",
}
_LENS = {
    "hook_resid_post": "residual",
    "hook_resid_mid": "residual_mid",
    "hook_attn_out": "attn_out",
    "attn.hook_z": "attn_heads",
    "hook_mlp_in": "mlp_in",
    "hook_mlp_out": "mlp_out",
    "mlp.hook_post": "mlp_neurons",
}


@dataclass(frozen=True, order=True)
class Site:
    """A place in a network: one of KINDS and a layer (counted from 0; 0 for ``embedding``).

    alias keeps the foreign name it was parsed from (not part of equality). model: which of several models has it, ""
    where there is one; letters, digits, ``_``, ``.`` and ``-``. Raises SiteError for an unknown kind, a negative layer
    or a name of other characters.
    """

    kind: str
    layer: int = 0
    alias: str | None = field(default=None, compare=False, repr=False)
    model: str = ""

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise SiteError(
                f"{self.kind!r} is not a kind of site.{nearest(self.kind, KINDS)} Use one of: {', '.join(KINDS)}."
            )
        if self.layer < 0 or (self.kind == "embedding" and self.layer != 0):
            raise SiteError(
                f"layer={self.layer} is not a layer of {self.kind}. Layers count from 0; embedding has none."
            )
        if not re.fullmatch(r"[\w.-]*", self.model):
            raise SiteError(f"model={self.model!r} is not a name for a model. Use letters, digits, '_', '.' and '-'.")

    def __str__(self) -> str:
        place = self.kind if self.kind == "embedding" else f"{self.kind}.{self.layer}"
        return f"{self.model}:{place}" if self.model else place

    @property
    def lens_name(self) -> str:
        """TransformerLens' name of the place: the alias it came with, or ``blocks.L.hook_...``."""
        if self.alias:
            return self.alias
        if self.kind == "embedding":
            return "hook_embed"
        return f"blocks.{self.layer}.{next(lens for lens, kind in _LENS.items() if kind == self.kind)}"

    @classmethod
    def parse(cls, name: str | Site) -> Site:
        """The site a name stands for: ``residual.6``, ``embedding``, ``blocks.6.hook_resid_post`` (TransformerLens;
        ``hook_resid_pre`` of block L is ``residual.L-1``), either after a model's name and a colon, or a Site itself.
        Raises SiteError with the allowed forms."""
        if isinstance(name, Site):
            return name
        if ":" in name and "+" not in name:
            model, _, place = name.partition(":")
            return replace(cls.parse(place), model=model)
        if name in ("embedding", "hook_embed", "blocks.0.hook_resid_pre"):
            return cls("embedding", alias=None if name == "embedding" else name)
        lens = re.fullmatch(r"blocks\.(\d+)\.(.+)", name)
        if lens and lens[2] in _LENS:
            return cls(_LENS[lens[2]], int(lens[1]), alias=name)
        if lens and lens[2] == "hook_resid_pre":
            return cls("residual", int(lens[1]) - 1, alias=name)
        own = re.fullmatch(r"([a-z_]+)\.(\d+)", name)
        if own:
            return cls(own[1], int(own[2]))
        if "+" in name:
            raise SiteError(
                f"{name!r} names several sites, and one is needed here. Give one of {', '.join(name.split('+'))}."
            )
        raise SiteError(
            f"{name!r} is not a site. Write it like residual.6, mlp_out.0, embedding or blocks.6.hook_resid_post; "
            "with several models, chat:residual.6."
        )


def parse_sites(names: str | Site | Iterable[str | Site]) -> tuple[Site, ...]:
    """The sites of one name, of several joined by "+" (the views of a crosscoder, as its manifest writes them), or of a
    sequence of names. Raises SiteError as `Site.parse` does."""
    if isinstance(names, Site):
        return (names,)
    return tuple(map(Site.parse, names.split("+") if isinstance(names, str) else names))
