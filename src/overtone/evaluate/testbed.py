"""Real states to try dictionaries on, with something known about each: `reasoner_states`, those of the bundled reasoner
while it reads written traces. (`real_text.encoder_states`: those of a sentence encoder over documentation.)

The traces come from the generator whose texts the model was trained on, so nothing is sampled and the parser knows the
behaviour of every step. Splits are by group (problem, document): none lies on two sides.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from random import Random
from typing import TYPE_CHECKING

import numpy as np
import torch

from overtone.activations.positions import AllTokens
from overtone.activations.stream import ActivationStream
from overtone.core.batch import Where
from overtone.core.seeds import derive, numpy_generator, torch_generator
from overtone.core.sites import Site
from overtone.data.countdown.problems import split_problems
from overtone.data.countdown.tokens import written_traces
from overtone.data.traces import ReasoningTrace, StepSpan, cut_steps, delimiter_ids, split_groups
from overtone.dictionaries.dictionary import Dictionary
from overtone.evaluate.compare import Sample
from overtone.evaluate.recognition import LabelledCodes, Recogniser, best_latents, mean_auroc
from overtone.interpret.contexts import ContextFinder
from overtone.models.reasoner import bundled_reasoner

if TYPE_CHECKING:
    from torch import Tensor

    from overtone.models.hooked import HookedModel


@dataclass(frozen=True, eq=False)
class LabelledStates:
    """States at some sites, one row per token. x: site -> (rows, width) float32; where: origin of each row; labels: the
    behaviour of its step or the subject of its text, by row, None where nothing is known; traces: by document, with the
    groups that splits go by; model: what was read; g: site -> (rows, width) loss gradients, where asked for."""

    x: dict[Site, Tensor]
    where: Where
    labels: tuple[str | None, ...]
    traces: tuple[ReasoningTrace, ...]
    model: HookedModel
    g: dict[Site, Tensor] | None = None

    @property
    def groups(self) -> tuple[str, ...]:
        """The group of each row: its problem or document."""
        return tuple(self.traces[d].group for d in self.where.document.tolist())

    @cached_property
    def spans(self) -> dict[int, list[StepSpan]]:
        """Steps of each trace, by document."""
        delimiters = delimiter_ids(self.model.tokenizer)
        return {trace.document: cut_steps(trace, delimiters) for trace in self.traces}

    def contexts(self, codes: Tensor, rows: Tensor) -> ContextFinder:
        """Finder of the places where the latents of some rows' codes are active, token by token."""
        here, decode = self.where.select(rows), self.model.tokenizer.decode
        tokens = Where(here.document, here.token, torch.full_like(here.step, -1))
        return ContextFinder(codes, tokens, self.traces, {}, lambda token: decode([token]) + " ")

    def split(self, seed: int, share: float = 0.7) -> tuple[Tensor, Tensor]:
        """Row indices of two parts that share no group, the first with that share of the groups."""
        parts = split_groups(self.traces, {"train": share, "held_out": 1 - share}, seed)
        train = torch.tensor([t.document for t in parts["train"]])
        inside = torch.isin(self.where.document, train)
        return inside.nonzero().view(-1), (~inside).nonzero().view(-1)

    def sample(self, site: Site | str, seed: int, share: float = 0.7) -> Sample:
        """The states of a site, split by group anew for each seed: what `compare` asks for."""
        site = Site.parse(site)
        x, (train, held_out) = self.x[site], self.split(seed, share)
        return Sample(x[train], x[held_out], g=None if self.g is None else self.g[site][train])

    def held_out_traces(self, seed: int, share: float = 0.7) -> list[ReasoningTrace]:
        """The traces whose rows `sample` holds out."""
        rows = self.split(seed, share)[1]
        return [self.traces[d] for d in self.where.document[rows].unique().tolist()]

    def recognition(self, dictionary: Dictionary, site: Site | str, seed: int, *, every: int = 5) -> float:
        """Mean over labels of the AUROC, in [0, 1], with which the best single latent tells it from the others: chosen
        on every `every`-th row of one part of `split(seed)`, measured on the other."""
        parts = (self._labelled(dictionary, site, part[::every]) for part in self.split(seed))
        return mean_auroc(best_latents(*parts, rng=np.random.default_rng(seed), draws=10))

    def recognisers(
        self, dictionary: Dictionary, site: Site | str, seed: int, *, rows: int = 4000
    ) -> dict[str, Recogniser]:
        """The best latent for each label, chosen on the first part of `split(seed)` and measured on the second, on
        up to `rows` random rows of each."""
        orders = (torch.randperm(len(part), generator=torch_generator(seed, "recognised")) for part in self.split(seed))
        parts = (
            self._labelled(dictionary, site, part[order[:rows]])
            for part, order in zip(self.split(seed), orders, strict=True)
        )
        return best_latents(*parts, rng=numpy_generator(seed, "recognised"), draws=10)

    def _labelled(self, dictionary: Dictionary, site: Site | str, rows: Tensor) -> LabelledCodes:
        groups, codes = self.groups, dictionary.encode(self.x[Site.parse(site)][rows])
        return LabelledCodes(
            codes, tuple(self.labels[i] for i in rows.tolist()), tuple(groups[i] for i in rows.tolist())
        )


def unseen_traces(model: HookedModel, n_traces: int, *, seed: int = 0) -> list[ReasoningTrace]:
    """Written traces on problems that neither the bundled model nor anything fitted on `reasoner_states` has seen."""
    rng = Random(derive(seed, "unseen"))
    return written_traces(split_problems(held_out=True), n_traces, model.need_tokenizer().get_vocab(), rng)


def reasoner_states(
    sites: Sequence[Site | str], n_traces: int, *, seed: int = 0, model: HookedModel | None = None,
    gradient: str | None = None,
) -> LabelledStates:  # fmt: skip
    """States of the bundled reasoner (or `model`, one of its kind) at some sites over n_traces written traces.

    One row per token of the responses, about 150 per trace, with its step (the delimiter that ends a step belongs to
    it); labelled with the step's behaviour. gradient: as for `ActivationStream`. Raises ModelError if the bundled model
    is absent, SiteError for a site it lacks.
    """
    model = model or bundled_reasoner()
    vocabulary = model.tokenizer.get_vocab()
    rng = Random(derive(seed, "testbed"))
    traces = written_traces(split_problems(held_out=False), n_traces, vocabulary, rng)
    stream = ActivationStream(
        model, traces, [Site.parse(s) for s in sites], AllTokens(part="response"), gradient=gradient, quiet=True
    )
    batch = stream.all()
    steps = _steps(traces, batch.where, delimiter_ids(model.tokenizer))
    names = tuple(
        traces[d].meta["behaviours"][s] for d, s in zip(batch.where.document.tolist(), steps.tolist(), strict=True)
    )
    where = Where(batch.where.document, batch.where.token, steps)
    return LabelledStates(dict(batch.x), where, names, tuple(traces), model, None if batch.g is None else dict(batch.g))


def _steps(traces: Sequence[ReasoningTrace], where: Where, delimiters: frozenset[int]) -> Tensor:
    """The step that each row's token lies in: the first whose end, delimiter included, is not before it."""
    found = torch.zeros_like(where.token)
    for trace in traces:
        ends = torch.tensor([span.delimiter for span in cut_steps(trace, delimiters)])
        rows = where.document == trace.document
        found[rows] = torch.searchsorted(ends, where.token[rows]).clamp(max=len(ends) - 1)
    return found
