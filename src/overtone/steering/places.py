"""`Places`: what a model says next at the ends of some texts, under a steering at those ends, many steerings in turn.

The history of every text is computed once and kept; a steering then costs one token per text, in the blocks after its
first site. It is the local effect of an edit: earlier positions are as the unsteered model left them. Deterministic, so
a few hundred places tell two directions apart that sampled texts would not.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import torch
from jaxtyping import Float
from torch import Tensor

from overtone.core.errors import DataError
from overtone.core.sites import Site
from overtone.models.decoding import let_go
from overtone.models.hooks import Call
from overtone.steering.plan import Arm, Plan

if TYPE_CHECKING:
    from overtone.models.decoding import KeyValues
    from overtone.models.hooked import HookedModel
    from overtone.models.hooks import Editor


@dataclass
class _Batch:
    """Texts of similar length, padded on the left, all but their last tokens in the cache; states: of these, at the
    sites where a pass began, (texts, 1, width)."""

    index: list[int]
    tokens: Tensor
    real: Tensor
    cache: "KeyValues"
    states: dict[Site, Tensor] = field(default_factory=dict)


class Places:
    """The ends of some texts.

    texts: token ids, at least two each (the last one is where a steering may apply: it counts as the end of the prompt,
    see `When`). batch_tokens: of texts of similar length that share a pass, padding included (a longer one goes alone).
    first: a residual site before which no steering will act. Raises DataError for no texts or a text of fewer than two
    tokens. Memory: keys and values of all texts, in the blocks after `first`.
    """

    def __init__(
        self,
        model: "HookedModel",
        texts: Sequence[Sequence[int]],
        *,
        batch_tokens: int = 8192,
        first: Site | None = None,
    ) -> None:
        if not texts or min(map(len, texts)) < 2:
            raise DataError(
                "places need texts of at least two tokens: a history, and the token whose successor counts."
            )
        if first is not None and model.check(first).kind != "residual":
            raise DataError(
                f"first={first}: a pass can begin at residual sites only. Give one of these, or leave it out."
            )
        self.model, self.n, self.first = model, len(texts), first
        parts: list[list[int]] = [[]]
        for i in sorted(range(len(texts)), key=lambda i: len(texts[i])):
            if parts[-1] and len(texts[i]) * (len(parts[-1]) + 1) > batch_tokens:
                parts.append([])
            parts[-1].append(i)
        self._batches = [self._laid([texts[i] for i in part], part) for part in parts]

    def _laid(self, texts: Sequence[Sequence[int]], index: list[int]) -> _Batch:
        width = max(map(len, texts))
        tokens = torch.zeros(len(texts), width, dtype=torch.int64, device=self.model.device)
        real = torch.zeros_like(tokens, dtype=torch.bool)
        for row, text in enumerate(texts):
            tokens[row, width - len(text) :] = torch.tensor(list(text))
            real[row, width - len(text) :] = True
        _, cache = self.model.forward(tokens[:, :-1], real[:, :-1], prompt_columns=width, last_only=True)
        for layer in cache.past.layers:
            if hasattr(layer, "activate_past_recording"):  # a sliding window, so that its last column can be taken back
                layer.activate_past_recording()
        batch = _Batch(index, tokens, real, cache)
        if self.first is not None:
            self._keep(batch, self.first, {})
            let_go(cache, self.first.layer + 1)
        return batch

    def logits(self, steering: Arm = ()) -> Float[Tensor, "texts vocabulary"]:
        """Logits of the next token at the end of every text, in the order of the texts.

        Raises SiteError or ShapeError if a direction does not belong to the model, DataError if it acts before `first`.
        """
        out = torch.empty(self.n, self.model.vocab_size)
        for batch in self._batches:
            n, width = batch.tokens.shape
            plan = Plan(self.model, [steering], torch.zeros(n, dtype=torch.int64))
            editors = plan.editors()
            found = self._last(batch, editors, self._before(batch, editors))
            found = plan.biased(found, Call(batch.tokens, batch.real, width - 1, width))
            out[batch.index] = found[:, -1].float().cpu()
        return out

    def _before(self, batch: _Batch, edited: Collection[Site]) -> dict[Site, Tensor]:
        """Unsteered states of the last tokens where a pass can begin: at the first site that is edited, or `first`."""
        known = {} if self.first is None else {self.first: batch.states[self.first]}
        if not edited:
            return known
        if self.first is not None:
            early = [site for site in edited if site.layer < self.first.layer + (site.kind != "residual")]
            if early:
                raise DataError(
                    f"{early[0]} lies before {self.first}, where these places begin. Make them without `first`, or "
                    "with an earlier residual site."
                )
        if any(site.kind != "residual" for site in edited):
            return known
        start = min(edited, key=lambda site: site.layer)
        if start not in batch.states:
            self._keep(batch, start, known)
        return {start: batch.states[start]}

    def _keep(self, batch: _Batch, site: Site, known: dict[Site, Tensor]) -> None:
        """Read the unsteered states of the last tokens at a site."""

        def keep(states: Tensor, call: Call) -> Tensor:
            batch.states[site] = states
            return states

        self._last(batch, {site: keep}, known)

    def _last(self, batch: _Batch, editors: "Mapping[Site, Editor]", states: dict[Site, Tensor]) -> Tensor:
        """Logits of the last column; the cache is left as it was found."""
        width = batch.tokens.shape[1]
        with self.model.editing(editors):
            found, _ = self.model.forward(
                batch.tokens, batch.real, cache=batch.cache, prompt_columns=width, last_only=True, states=states
            )
        for layer in batch.cache.past.layers:  # the last token goes in again under the next steering
            if layer.get_seq_length() == width:
                layer.crop(-1)
        batch.cache.columns = width - 1
        return found
