"""Does an encoder still find the passage that goes on where another stops?

A sentence encoder predicts no token. One that was trained to tell a passage's partner from the other passages of a
batch has a loss of its own all the same: cross-entropy of the partner, by cosine of mean-pooled states times `SCALE`,
among the second halves of all texts of a batch (or the first halves, for a second half). So states have gradients of a
loss, and predictions have a KL to those of the untouched model.
Source of the loss: Reimers and Gurevych 2019 (arXiv 1908.10084) for pooling and cosine; in-batch negatives as in
Henderson et al. 2017 (arXiv 1705.00652); scale 20 as in the training of the sentence-transformers.
Halves of documentation stand for the pairs that such encoders are trained on.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.nn.functional import normalize

from overtone.activations.stream import padded
from overtone.core.batch import Where
from overtone.core.errors import DataError, SettingError
from overtone.core.sites import Site
from overtone.data.texts import Text, encode_texts
from overtone.evaluate.faithfulness import Batch, Task
from overtone.evaluate.testbed import LabelledStates

if TYPE_CHECKING:
    from overtone.data.traces import ReasoningTrace
    from overtone.models.hooked import HookedModel

SCALE = 20.0


def halves(tokenizer: Any, texts: Sequence[Text], *, longest: int | None = None) -> list[ReasoningTrace]:
    """Both halves of each text, cut between words, as token ids, of up to `longest` tokens: numbers 2 i and 2 i + 1.
    Raises DataError for a text of one word."""
    parts = []
    for text in texts:
        words = text.text.split()
        if len(words) < 2:
            raise DataError(f"{text.text!r} has no two words to cut between. Leave it out.")
        middle = len(words) // 2
        parts += [replace(text, text=" ".join(half)) for half in (words[:middle], words[middle:])]
    return encode_texts(tokenizer, parts, longest=longest)


@dataclass(frozen=True)
class Matching(Task):
    """The other half of each text, among those of the texts in its batch, up to `texts` of them. These lie far apart in
    the list of all, so that few are of one source: such encoders are trained on random batches. special: ids of tokens
    whose states are left alone."""

    special: frozenset[int] = frozenset()
    texts: int = 32

    def __post_init__(self) -> None:
        if self.texts < 2:
            raise SettingError(f"texts={self.texts}: one text alone leaves nothing to choose. Use at least 2.")

    def batches(self, traces: Sequence[ReasoningTrace]) -> Iterator[Batch]:
        """About equally many texts each; first halves, then second ones. Raises DataError for less than two texts."""
        n_texts = len(traces) // 2
        if n_texts < 2 or len(traces) % 2:
            raise DataError(f"{len(traces)} halves of texts: give both halves of at least 2.")
        n_batches = -(-n_texts // self.texts)
        for first in range(n_batches):
            numbers = torch.arange(first, n_texts, n_batches)
            members = [*(2 * numbers).tolist(), *(2 * numbers + 1).tolist()]
            tokens, real = padded([traces[m].tokens for m in members])
            places = real & ~torch.isin(tokens, torch.tensor(sorted(self.special), dtype=tokens.dtype))
            yield Batch(members, tokens, real, places, torch.arange(len(members)))

    def predictions(self, model: HookedModel, batch: Batch) -> Tensor:
        """Over the other halves of the batch's texts."""
        end = _end(model)
        return _choices(model.read(batch.tokens, batch.real, [end])[end], batch.real)

    def targets(self, batch: Batch) -> Tensor:
        """The half of the same text."""
        return torch.arange(len(batch.members) // 2).repeat(2)

    def slopes(self, model: HookedModel, batch: Batch, site: Site, labels: Tensor) -> Tensor:
        """Of the batch's mean loss."""
        return self.slopes_at(model, batch, [site], labels)[1][site]

    def slopes_at(
        self, model: HookedModel, batch: Batch, sites: Sequence[Site], labels: Tensor
    ) -> tuple[dict[Site, Tensor], dict[Site, Tensor]]:
        """States and gradients at the batch's places, site -> (places, width), from one pass."""
        ends, states, probes = model.probed(batch.tokens, batch.real, sites, end=_end(model))
        with torch.enable_grad():
            loss = torch.nn.functional.nll_loss(_choices(ends, batch.real), labels.to(ends.device))
            found = torch.autograd.grad(loss, [probes[site] for site in sites])
        places = batch.places.to(ends.device)
        return {s: states[s][places] for s in sites}, {s: g[places] for s, g in zip(sites, found, strict=True)}


def matched_states(
    model: HookedModel, traces: Sequence[ReasoningTrace], sites: Sequence[Site | str], task: Matching
) -> LabelledStates:
    """States of an encoder at some sites with gradients of its matching loss, one row per token that is not special;
    without labels. traces: as `halves` makes them."""
    where = [model.check(site) for site in sites]
    found, members, tokens = [], [], []
    for batch in task.batches(traces):
        found.append(task.slopes_at(model, batch, where, task.targets(batch)))
        rows, columns = batch.places.nonzero().T
        members.append(torch.tensor(batch.members)[rows])
        tokens.append(columns)
    document = torch.cat(members)
    order = document.argsort(stable=True)
    x, g = ({site: torch.cat([part[i][site] for part in found])[order] for site in where} for i in (0, 1))
    rows = Where(document[order], torch.cat(tokens)[order], torch.full_like(document, -1))
    return LabelledStates(x, rows, (None,) * len(document), tuple(traces), model, g)


def _end(model: HookedModel) -> Site:
    """Where a text's states are pooled: after the last block."""
    return Site("residual", model.n_layers - 1)


def _choices(ends: Tensor, real: Tensor) -> Tensor:
    """(texts, options) log-probabilities from (texts, seq, width) states: first halves, then second ones."""
    inside = real.to(ends.device).unsqueeze(2)
    pooled = normalize((ends.to(torch.promote_types(ends.dtype, torch.float32)) * inside).sum(1) / inside.sum(1), dim=1)
    first, second = pooled.chunk(2)
    scores = SCALE * first @ second.T
    return torch.cat([scores.log_softmax(1), scores.T.log_softmax(1)])
