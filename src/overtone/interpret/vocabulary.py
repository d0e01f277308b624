"""What a direction says: the tokens whose logits it raises and lowers (logit lens, nostalgebraist 2020)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from overtone.core.errors import SettingError, ShapeError


@dataclass(frozen=True)
class TokenShift:
    """A token, its id, and the change of its logit (the mean over the vocabulary removed) per unit of strength."""

    token: str
    id: int
    shift: float


@dataclass(frozen=True)
class VocabularyEffect:
    """The tokens a direction raises most and lowers most, strongest first."""

    raised: tuple[TokenShift, ...]
    lowered: tuple[TokenShift, ...]


def vocabulary_effect(
    model: Any, vector: Any, *, rows: Any = None, strength: float = 1.0, n: int = 10
) -> VocabularyEffect:
    """Read a direction through the model's final norm and output head: (logits(h + c v) - logits(h - c v)) / 2c.

    model: a HookedModel (its `unembed` maps residual rows (n, width) to logits (n, vocabulary); its tokenizer names the
    tokens); vector: (width,); rows: (rows, width) residual states h over which to average, default the zero row,
    where a norm shows the direction alone; strength: c, in the units of the residual. The symmetric difference
    removes what does not depend on the direction. A bias of the head cancels. Raises ShapeError if rows and vector
    differ in width, SettingError for strength 0.
    """
    import torch

    if strength == 0:
        raise SettingError("strength=0 changes nothing. Use the strength at which the direction is applied.")
    v = torch.as_tensor(vector).float().cpu()
    base = torch.zeros(1, len(v)) if rows is None else torch.as_tensor(rows).float().cpu()
    if v.ndim != 1 or base.ndim != 2 or base.shape[1] != len(v):
        raise ShapeError(f"vector {tuple(v.shape)} and rows {tuple(base.shape)} must be (width,) and (rows, width).")
    with torch.no_grad():
        logits = model.unembed(torch.cat([base + strength * v, base - strength * v])).float().cpu()
    shift = ((logits[: len(base)] - logits[len(base) :]).mean(0)) / (2 * strength)
    shift = shift - shift.mean()
    ids = shift.argsort(descending=True, stable=True).tolist()
    names = model.tokenizer

    def listed(chosen: list[int]) -> tuple[TokenShift, ...]:
        return tuple(TokenShift(names.decode([i]), i, float(shift[i])) for i in chosen)

    n = min(n, len(ids) // 2)
    return VocabularyEffect(listed(ids[:n]), listed(ids[: -n - 1 : -1]))
