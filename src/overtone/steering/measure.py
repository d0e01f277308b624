"""How much a steering changes what the model says next, in nats: the price of an effect, and a unit of strength.

Teacher-forced: both models read the same traces, so a difference at one position is not the echo of an earlier choice.
"""

from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from overtone.core.errors import DataError
from overtone.core.sites import Site
from overtone.data.traces import ReasoningTrace
from overtone.models.hooks import Call
from overtone.steering.plan import Arm, Plan

if TYPE_CHECKING:
    from overtone.models.hooked import HookedModel

Positions = str | Callable[[ReasoningTrace], Sequence[int]]
"""Which next-token distributions are compared: "steered" (where an edit applies), "response" (every token of the
response), or a function from a trace to positions in trace.tokens (position p predicts token p + 1)."""

MAX_LOGITS = 2**25  # entries of one batch's logits: 128 MB in float32


@dataclass(frozen=True, eq=False)
class Divergence:
    """KL(steered || unsteered) of next-token distributions.

    per_trace: (traces,) mean over the positions of each trace, in nats, NaN where there is none; n_positions:
    (traces,).
    """

    per_trace: Tensor
    n_positions: Tensor

    @property
    def mean(self) -> float:
        """Mean over all positions of all traces, in nats; NaN if there is none."""
        counted = self.n_positions > 0
        total = (self.per_trace[counted].double() * self.n_positions[counted]).sum()
        return float(total / self.n_positions.sum()) if bool(counted.any()) else float("nan")


@dataclass(frozen=True, eq=False)
class Laid:
    """Traces side by side: prompts padded on the left, responses on the right, so that all prompts end in one column.

    tokens: (batch, columns) int64; real: bool; prompt_columns: as in `Call`; shift: (batch,) column of each text's
    position 0.
    """

    tokens: Int[Tensor, "batch columns"]
    real: Bool[Tensor, "batch columns"]
    prompt_columns: int
    shift: Int[Tensor, " batch"]


class Comparison:
    """The unsteered model's predictions on some traces, kept, so that many steerings are measured against them.

    Raises DataError if there are no traces. Memory: (positions, vocabulary) float32 in all; choose few traces or
    positions.
    """

    def __init__(
        self,
        model: "HookedModel",
        traces: Sequence[ReasoningTrace],
        positions: Positions = "steered",
        *,
        batch_rows: int = 64,
    ) -> None:
        if not traces:
            raise DataError("there are no traces to measure on. Generate some without steering first.")
        self.model, self.traces, self.positions, self.batch_rows = model, list(traces), positions, batch_rows
        self._kept: dict[tuple[int, ...], tuple[Laid, Tensor]] = {}
        self._states: dict[tuple[int, ...], dict[Site, Tensor]] = {}

    def measure(self, steering: Arm) -> Divergence:
        """KL(steered || unsteered) under some steerings, in force together."""
        per_trace = torch.full((len(self.traces),), float("nan"))
        counts = torch.zeros(len(self.traces), dtype=torch.int64)
        for rows in self._batches():
            laid, before = self._unsteered(rows)
            mask = self._mask(laid, rows, steering)
            kl = _kl(self._logits(laid, steering, rows)[mask], before[mask])
            row = mask.nonzero()[:, 0]
            n = mask.sum(1).cpu()
            sums = torch.zeros(len(rows), dtype=kl.dtype).index_add_(0, row.cpu(), kl.cpu())
            per_trace[list(rows)] = torch.where(n > 0, sums / n, torch.nan).float()
            counts[list(rows)] = n
        return Divergence(per_trace, counts)

    def _batches(self) -> Iterator[tuple[int, ...]]:
        """Indices of traces of similar length, as many as fit."""
        order = sorted(range(len(self.traces)), key=lambda i: len(self.traces[i].tokens))
        while order:
            longest = len(self.traces[order[-1]].tokens)
            fits = MAX_LOGITS // (self.model.vocab_size * longest)
            n = max(1, min(self.batch_rows, fits))
            yield tuple(order[-n:])
            del order[-n:]

    def _unsteered(self, rows: tuple[int, ...]) -> tuple[Laid, Tensor]:
        if rows not in self._kept:
            laid = lay_out([self.traces[i] for i in rows])
            self._kept[rows] = (laid, self._logits(laid, (), rows))
        return self._kept[rows]

    def _logits(self, laid: Laid, steering: Arm, rows: tuple[int, ...]) -> Float[Tensor, "batch columns vocabulary"]:
        plan = Plan(self.model, [steering], torch.zeros(len(laid.tokens), dtype=torch.int64))
        editors = plan.editors()
        states = self._before(laid, rows, editors)
        with self.model.editing(editors):
            logits = self.model.logits(laid.tokens, laid.real, prompt_columns=laid.prompt_columns, states=states)
        tokens, real = laid.tokens.to(logits.device), laid.real.to(logits.device)
        return plan.biased(logits, Call(tokens, real, 0, laid.prompt_columns))

    def _before(self, laid: Laid, rows: tuple[int, ...], edited: Collection[Site]) -> dict[Site, Tensor]:
        """Unsteered states at the first site that is edited, where a pass can begin; those of one site are kept."""
        if not edited or any(site.kind != "residual" for site in edited):
            return {}
        first = min(edited, key=lambda site: site.layer)
        kept = self._states.get(rows, {})
        if first not in kept:
            kept = self.model.read(laid.tokens, laid.real, [first], prompt_columns=laid.prompt_columns)
            self._states[rows] = kept
        return kept

    def _mask(self, laid: Laid, rows: Sequence[int], steering: Arm) -> Bool[Tensor, "batch columns"]:
        """Where the distributions are compared; a column without a next token never is."""
        has_next = laid.real & torch.cat([laid.real[:, 1:], torch.zeros_like(laid.real[:, :1])], 1)
        if self.positions == "steered":
            call = Call(laid.tokens, laid.real, 0, laid.prompt_columns)
            mask = torch.zeros_like(laid.real)
            for one in steering:
                mask = mask | one.when.mask(call)
            return mask & has_next
        if self.positions == "response":
            column = torch.arange(laid.tokens.shape[1])
            return has_next & (column >= laid.prompt_columns - 1)
        if isinstance(self.positions, str):
            raise DataError(f"positions={self.positions!r}: use steered, response, or a function of a trace.")
        mask = torch.zeros_like(laid.real)
        for i, row in enumerate(rows):
            at = torch.tensor(list(self.positions(self.traces[row])), dtype=torch.int64)
            mask[i, at + laid.shift[i]] = True
        return mask & has_next


def measure_kl(
    model: "HookedModel", traces: Sequence[ReasoningTrace], steering: Arm, positions: Positions = "steered"
) -> Divergence:
    """KL(steered || unsteered) of the next-token distribution at some positions of traces, in nats.

    0 exactly where nothing is changed. To measure many steerings on the same traces, keep a `Comparison`.
    Raises DataError for no traces, SiteError or ShapeError if a direction does not belong to the model.
    """
    return Comparison(model, traces, positions).measure(steering)


def lay_out(traces: Sequence[ReasoningTrace]) -> Laid:
    """Traces side by side, so that `Call.prompt_columns` is right for all of them."""
    left, right = max(len(t.prompt_ids) for t in traces), max(len(t.response_ids) for t in traces)
    tokens = torch.zeros(len(traces), left + right, dtype=torch.int64)
    real = torch.zeros_like(tokens, dtype=torch.bool)
    shift = torch.tensor([left - len(t.prompt_ids) for t in traces])
    for i, trace in enumerate(traces):
        span = slice(int(shift[i]), int(shift[i]) + len(trace.tokens))
        tokens[i, span], real[i, span] = torch.tensor(trace.tokens), True
    return Laid(tokens, real, left, shift)


def _kl(steered: Float[Tensor, "n vocabulary"], unsteered: Float[Tensor, "n vocabulary"]) -> Float[Tensor, " n"]:
    log_p, log_q = steered.double().log_softmax(-1), unsteered.double().log_softmax(-1)
    terms = torch.where(log_p.exp() > 0, log_p.exp() * (log_p - log_q), 0)
    return terms.sum(-1).clamp_min(0)
