"""Does an edit make a model more ready to begin a step of some kind? Read from its next-token probabilities, without
sampling.

Where a step is about to begin, the probability of the words that open steps of a kind is the model's propensity for it.
Nothing is generated, so one forward pass measures an edit; but words are not deeds, and what follows an opening is not
looked at (evaluate/steering_effect does that).
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import torch

from overtone.core.errors import DataError
from overtone.data.traces import ReasoningTrace, StepSpan
from overtone.directions.direction import Direction
from overtone.steering.calibrate import strength_for_kl
from overtone.steering.edits.add import Add
from overtone.steering.measure import lay_out
from overtone.steering.steer import Steering, steered

if TYPE_CHECKING:
    from torch import Tensor

    from overtone.models.hooked import HookedModel


def openings(
    traces: Sequence[ReasoningTrace], spans: Mapping[int, Sequence[StepSpan]], labels: Mapping[int, Sequence[str]], *,
    purity: float = 0.8, n_min: int = 5,
) -> dict[str, frozenset[int]]:  # fmt: skip
    """The first tokens that tell the kind of a step: kind -> ids. A token counts if it opens at least n_min steps and
    the share `purity` of them are of one kind; kinds without such a token are left out.

    spans, labels: steps and their kinds, by document.
    """
    seen: defaultdict[int, Counter[str]] = defaultdict(Counter)
    for trace in traces:
        for span, label in zip(spans[trace.document], labels[trace.document], strict=True):
            seen[trace.tokens[span.start]][label] += 1
    found: defaultdict[str, set[int]] = defaultdict(set)
    for token, kinds in seen.items():
        kind, count = kinds.most_common(1)[0]
        if kinds.total() >= n_min and count >= purity * kinds.total():
            found[kind].add(token)
    return {kind: frozenset(ids) for kind, ids in sorted(found.items())}


def propensities(
    model: HookedModel, traces: Sequence[ReasoningTrace], spans: Mapping[int, Sequence[StepSpan]],
    kinds: Mapping[str, frozenset[int]], steering: Sequence[Steering] = (),
) -> dict[str, float]:  # fmt: skip
    """For each kind, the mean over the places where a step begins of the log probability of its openings, in nats.

    The difference of two calls is the effect of a steering: 0.69 is a doubled probability. Raises DataError if there is
    no place where a step begins.
    """
    laid = lay_out(traces)
    with steered(model, steering):
        logits, _ = model.forward(laid.tokens, laid.real, prompt_columns=laid.prompt_columns)
    places = [
        (row, int(laid.shift[row]) + span.before)
        for row, trace in enumerate(traces)
        for span in spans[trace.document]
        if span.before >= 0
    ]
    if not places:
        raise DataError("no step begins in these traces. Give traces with steps.")
    rows, columns = torch.tensor(places).T
    logs: Tensor = logits[rows, columns].float().log_softmax(1)
    return {kind: float(logs[:, sorted(ids)].logsumexp(1).mean()) for kind, ids in kinds.items()}


def effect_at_kl(
    model: HookedModel, traces: Sequence[ReasoningTrace], spans: Mapping[int, Sequence[StepSpan]],
    kinds: Mapping[str, frozenset[int]], kind: str, direction: Direction, nats: float,
) -> float:  # fmt: skip
    """Change of the propensity for one kind, in nats, when a direction is added at every token of the responses, as
    strongly as moves the next-token distribution by a mean KL of `nats`. Raises what `strength_for_kl` raises."""

    def arm(strength: float) -> list[Steering]:
        return [Steering(direction, Add(strength))]

    strength = strength_for_kl(model, traces, arm, nats, start=3.0).strength
    before, after = (propensities(model, traces, spans, kinds, edits) for edits in ((), arm(strength)))
    return after[kind] - before[kind]
