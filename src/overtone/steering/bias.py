"""`LogitBias`: the baseline without states. Adds a fixed vector to the logits at the positions of a `When`.

A direction at the last block changes nothing but the next token's logits, so it is close to a bias. What a steering
of an earlier layer does beyond its bias is what it does to the computation.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Float
from torch import Tensor

from overtone.core.errors import DataError, SettingError, ShapeError
from overtone.directions.direction import Direction
from overtone.steering.when import When

if TYPE_CHECKING:
    from overtone.models.hooked import HookedModel


@dataclass(frozen=True, eq=False)
class LogitBias:
    """A vector over the vocabulary, added to the logits at the positions of `when`; used in place of a `Steering`.

    vector: (vocabulary,) floating, in logits (nats before normalisation); name: for reports.
    """

    vector: Tensor
    when: When = field(default_factory=When)
    name: str = "logit bias"

    def check(self, model: "HookedModel") -> None:
        """Return quietly if the model has this vocabulary. Raises ShapeError naming both sizes otherwise."""
        if self.vector.ndim != 1 or self.vector.shape[0] != model.vocab_size:
            raise ShapeError(
                f"{self.name}: a bias of shape {tuple(self.vector.shape)} for a vocabulary of {model.vocab_size}. "
                "Make it with this model."
            )

    def scaled(self, factor: float) -> "LogitBias":
        """The same bias times a factor."""
        return LogitBias(self.vector * factor, self.when, self.name)

    def biased(
        self, logits: Float[Tensor, "batch columns vocabulary"], mask: Tensor
    ) -> Float[Tensor, "batch columns vocabulary"]:
        """Logits with the bias where mask (batch, columns) is True; elsewhere bit-identical."""
        out = logits.clone()
        out[mask] = logits[mask] + self.vector.to(logits)
        return out

    def describe(self) -> dict[str, Any]:
        """Name, size and when as plain data, for provenance."""
        return {"logit_bias": self.name, "norm": float(self.vector.norm()), "when": self.when.describe()}


def bias_of(
    model: "HookedModel",
    direction: Direction,
    strength: float,
    *,
    final_rows: Float[Tensor, "rows width"],
    when: When | None = None,
    name: str = "",
) -> LogitBias:
    """What adding strength * v at the LAST block does to the logits, on average over its states there.

    W_U v with the final norm taken into account: mean over final_rows (states of the last block's residual at the
    positions to be steered) of unembed(h + c v) - unembed(h), with the mean over the vocabulary (which changes no
    probability) taken off. strength: c, absolute, in the units of those states. The direction may come from any
    residual site: its vector is read in the stream's coordinates. Raises DataError without rows, ShapeError for
    another width.
    """
    if final_rows.shape[0] == 0:
        raise DataError("bias_of needs states of the last block to put the direction in proportion; there are no rows.")
    with torch.no_grad():
        v = direction.like(final_rows)
        moved = model.unembed(final_rows + strength * v) - model.unembed(final_rows)
    vector = moved.double().mean(0)
    return LogitBias((vector - vector.mean()).float(), when or When(), name or f"bias of {direction.name}")


def keyword_penalty(
    model: "HookedModel", token_ids: Iterable[int], penalty: float = -3.0, *, when: When | None = None
) -> LogitBias:
    """SEAL's baseline: a penalty on the logits of some words, at every generated position by default (prompt end
    included).

    It reduces the words; models paraphrase around it. Raises SettingError for no ids, DataError for ids outside the
    vocabulary. Source: Chen et al. 2025, arXiv 2504.07986 (-3 on words such as wait, alternatively).
    """
    ids = sorted(set(token_ids))
    if not ids:
        raise SettingError("keyword_penalty got no token ids. Look them up with the model's tokenizer.")
    if ids[0] < 0 or ids[-1] >= model.vocab_size:
        raise DataError(f"token ids run from {ids[0]} to {ids[-1]}; the vocabulary has {model.vocab_size} entries.")
    vector = torch.zeros(model.vocab_size)
    vector[ids] = penalty
    return LogitBias(vector, when or When(include_prompt_end=True), "keyword penalty")
