"""Gradients of a model's loss with respect to its states: which way a state would have to move for the text to become
less likely."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from overtone.core.errors import DataError, ModelError, SettingError, nearest

if TYPE_CHECKING:
    from overtone.core.sites import Site
    from overtone.models.hooked import HookedModel

REDUCTIONS = ("mean", "sum")
_HALF_SCALE = 128.0  # float16 loses what is below 6e-8; the loss is enlarged by this and the gradient brought back


@dataclass(frozen=True, eq=False)
class LossGradients:
    """What one pass forward and back gives. states, gradients: site -> (batch, seq, width), in the model's dtype and in
    float32; both mean nothing on padding, where gradients are 0. loss: (batch,) float32 in nats, reduced as asked."""

    states: dict[Site, Tensor]
    gradients: dict[Site, Tensor]
    loss: Tensor


@torch.enable_grad()
def loss_gradients(
    model: HookedModel, tokens: Tensor, real: Tensor | None, sites: Sequence[Site], *, reduction: str,
    labels: Tensor | None = None,
) -> LossGradients:  # fmt: skip
    """States at some sites and the gradient of each text's next-token cross-entropy with respect to them.

    tokens: (batch, seq) ids; real: False on padding (None: no padding). reduction "sum": the loss of a text is the sum
    over its tokens but the first; "mean": that sum divided by their number. A state's gradient collects the loss of its
    own next token and of all later ones, so that early states have larger ones. labels: (batch, seq) ids that take the
    place of `tokens` in the loss alone, as a control. Texts do not act on each other. The whole model runs, forward and
    back; its weights take no part. Raises SettingError for another reduction, ModelError
    for a model that is not causal or has no head, DataError for a text of one token.
    """
    if reduction not in REDUCTIONS:
        raise SettingError(f"reduction={reduction!r}.{nearest(reduction, REDUCTIONS)} Use {' or '.join(REDUCTIONS)}.")
    if not model.is_causal:
        raise ModelError(f"{model.name} is an encoder: it predicts no next token, so there is no loss to derive.")
    real = torch.ones_like(tokens, dtype=torch.bool) if real is None else real
    counts = real.sum(1) - 1
    if bool((counts < 1).any()):
        raise DataError("a text of one token has no next token to predict. Leave it out.")
    on_the_right = real == (torch.arange(real.shape[1], device=real.device) < real.sum(1, keepdim=True))
    logits, states, probes = model.probed(tokens, None if bool(on_the_right.all()) else real, sites)
    labels = tokens if labels is None else labels
    labels, real, counts = (part.to(logits.device) for part in (labels, real, counts))
    predicted = real[:, 1:] & real[:, :-1]
    losses = cross_entropy(logits[:, :-1].float().flatten(0, 1), labels[:, 1:].flatten(), reduction="none")
    per_text = (losses.view_as(predicted) * predicted).sum(1)
    scale = _HALF_SCALE if logits.dtype == torch.float16 else 1.0
    found = torch.autograd.grad(scale * per_text.sum(), list(probes.values()))
    share = 1 / counts if reduction == "mean" else torch.ones_like(counts)
    factor = (share.float() / scale)[:, None, None] * real[:, :, None]
    gradients = {site: g.float() * factor for site, g in zip(probes, found, strict=True)}
    return LossGradients(states, gradients, per_text.detach() * share)
