"""Live activations: texts go through the model as they are needed, nothing is kept but a bounded window and buffer.

Documents of similar length share a forward pass to save padding, but rows come out in document order: passes are formed
inside a window of documents, and the window's rows are put back in place before they leave.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from overtone.activations.positions import Picks, Positions
from overtone.activations.source import MOST_BYTES, gathered, in_bytes, ordered_batches, row_bytes
from overtone.core.batch import ActivationBatch, Where, require_finite
from overtone.core.errors import DataError, SettingError, nearest
from overtone.core.progress import track
from overtone.core.sites import Site
from overtone.data.traces import ReasoningTrace, traces_fingerprint
from overtone.models.gradients import REDUCTIONS, loss_gradients

if TYPE_CHECKING:
    from overtone.models.hooked import HookedModel

WINDOW_PASSES = 8
"""A window holds about this many passes' worth of tokens: enough to sort by length, little to keep."""


@dataclass(frozen=True)
class Estimate:
    """What a harvest will take, known before it starts.

    n_documents, n_tokens: real tokens that go through the model in one epoch; n_rows: rows that come out;
    bytes_all: all rows as float32 (what `all()` holds); bytes_working: upper bound of the rows that a stream holds: one
    pass, one window and the shuffle buffer, their copies included (the model and its own work come on top).
    """

    n_documents: int
    n_tokens: int
    n_rows: int
    bytes_all: int
    bytes_working: int

    def __str__(self) -> str:
        return (
            f"{self.n_documents} texts, {self.n_tokens} tokens -> {self.n_rows} rows ({in_bytes(self.bytes_all)}; "
            f"{in_bytes(self.bytes_working)} while streaming)"
        )


class ActivationStream:
    """Rows of a model's states over traces: an `ActivationSource` that computes them again for each epoch.

    model: the model that is read, at `sites`, in one pass that stops at the deepest one. positions: which positions
    become rows. gradient: "mean" or "sum" adds to each row the gradient of the text's next-token loss, so reduced, with
    respect to its state (models/gradients); whole texts then go through the whole model, forward and back. A row that
    is the mean of several states gets the sum of their gradients: the slope along a move of them all. tokens_per_pass:
    most tokens in one forward pass, padding included (one longer text goes alone). buffer_rows: size of the shuffle
    buffer. Rows are float32 on the model's device, their origins on the CPU. For a causal model, nothing after the last
    position that is read is computed, unless there are gradients. Raises SiteError for a site the model lacks,
    SettingError for gradients of a maximum over states, DataError for no traces, a token outside the vocabulary, a text
    longer than the model can read, repeated document numbers or no position to read.
    """

    def __init__(
        self,
        model: HookedModel,
        traces: Sequence[ReasoningTrace],
        sites: Sequence[Site] | Site,
        positions: Positions,
        *,
        gradient: str | None = None,
        tokens_per_pass: int = 4096,
        buffer_rows: int = 65536,
        quiet: bool | None = None,
    ) -> None:
        sites = [sites] if isinstance(sites, Site) else list(dict.fromkeys(sites))
        if not sites or tokens_per_pass < 1 or buffer_rows < 2:
            raise SettingError(
                f"{len(sites)} sites, tokens_per_pass={tokens_per_pass}, buffer_rows={buffer_rows}: "
                "use at least 1, 1 and 2."
            )
        self.model, self.traces, self.positions = model, list(traces), positions
        self.sites: tuple[Site, ...] = tuple(model.check(site) for site in sites)
        self.tokens_per_pass, self.buffer_rows, self.quiet = tokens_per_pass, buffer_rows, quiet
        self.gradient = gradient
        _check_traces(self.traces, model)
        _check_gradient(gradient, positions)

    @cached_property
    def widths(self) -> Mapping[Site, int]:
        """Width of the state at each site."""
        return {site: self.model.width(site) for site in self.sites}

    @cached_property
    def rows_per_document(self) -> tuple[int, ...]:
        """How many rows each trace gives, in the order of the traces. Raises DataError if none gives any."""
        counts = tuple(len(self.positions.select(trace)) for trace in self.traces)
        if not any(counts):
            raise DataError(
                f"none of {len(counts)} texts holds a position to read ({self.positions.describe()['kind']}). "
                "Texts without blank lines have one step at most; check delimiters, think section and skipped ids."
            )
        return counts

    @property
    def n_rows(self) -> int:
        """Rows of one epoch."""
        return sum(self.rows_per_document)

    def estimate(self) -> Estimate:
        """Tokens, rows and bytes of one epoch; no forward pass is made."""
        row = row_bytes(self.widths, gradient=self.gradient is not None)
        n_tokens = sum(len(self._ids(t, self.positions.select(t))) for t in self.traces)
        window_rows = min(self.n_rows, self._most_rows_in_a_window())
        held = window_rows + 3 * min(self.buffer_rows, self.n_rows)
        longest = max(len(t.tokens) for t in self.traces)
        working = (held + 2 * max(self.tokens_per_pass, longest)) * row
        return Estimate(len(self.traces), n_tokens, self.n_rows, self.n_rows * row, working)

    def _most_rows_in_a_window(self) -> int:
        """Upper bound over all orders of documents: no window outgrows its tokens by more than its last document."""
        densest = max(n / max(len(t.tokens), 1) for n, t in zip(self.rows_per_document, self.traces, strict=True))
        most = WINDOW_PASSES * self.tokens_per_pass + max(len(t.tokens) for t in self.traces)
        return int(most * min(densest, 1.0)) + 1

    def batches(self, rows: int, *, seed: int | None = None, epochs: int = 1) -> Iterator[ActivationBatch]:
        """Batches of exactly `rows` rows (the last may be smaller), shuffled by seed, in document order without one.

        Raises DataError naming site and document if a state is NaN or infinite.
        """
        _ = self.n_rows  # refuse at once what gives no rows
        n, size = len(self.traces), self.buffer_rows
        return ordered_batches(self.read, n, rows, seed=seed, epochs=epochs, buffer_rows=size)

    def all(self, *, most_bytes: int = MOST_BYTES) -> ActivationBatch:
        """All rows in document order, with progress. Raises DataError if they take more than `most_bytes`."""
        gradient = self.gradient is not None
        return gathered(self._tracked(), self.n_rows, self.widths, most_bytes=most_bytes, gradient=gradient)

    @property
    def told(self) -> str:
        """What is read, for progress lines."""
        names = ", ".join(map(str, self.sites))
        return names if self.gradient is None else f"{names} with loss gradients ({self.gradient})"

    def _tracked(self) -> Iterator[ActivationBatch]:
        label = f"reading {self.told}: {self.estimate()}"
        windows = list(self._windows(range(len(self.traces))))
        for window in track(windows, label, quiet=self.quiet):
            yield self._window(window)

    def read(self, documents: Sequence[int]) -> Iterator[ActivationBatch]:
        """Rows of some documents (indices into the traces), in exactly that order, a window at a time."""
        for window in self._windows(documents):
            yield self._window(window)

    # ------------------------------------------------------------------------------------------------- one window
    def _windows(self, documents: Sequence[int]) -> Iterator[list[int]]:
        window: list[int] = []
        tokens = 0
        for document in documents:
            window.append(document)
            tokens += len(self.traces[document].tokens)
            if tokens >= WINDOW_PASSES * self.tokens_per_pass:
                yield window
                window, tokens = [], 0
        if window:
            yield window

    def _window(self, documents: Sequence[int]) -> ActivationBatch:
        picks = [self.positions.select(self.traces[d]) for d in documents]
        counts = torch.tensor([len(p) for p in picks])
        starts = (counts.cumsum(0) - counts).tolist()
        where = Where(
            torch.tensor([self.traces[d].document for d in documents]).repeat_interleave(counts),
            torch.cat([p.token for p in picks]),
            torch.cat([p.step for p in picks]),
        )
        out = self._room(len(where))
        for members in self._passes(documents, picks):
            found = self._pass([documents[m] for m in members], [picks[m] for m in members])
            place = torch.cat([torch.arange(starts[m], starts[m] + len(picks[m])) for m in members])
            for whole, part in zip(out, found, strict=True):
                for site, rows in part.items():
                    whole[site].index_copy_(0, place.to(rows.device), rows)
        return ActivationBatch(out[0], where, g=out[1] or None)

    def _room(self, n_rows: int) -> tuple[dict[Site, Tensor], dict[Site, Tensor]]:
        """Empty states and, where they are wanted, gradients."""
        x = {site: torch.empty(n_rows, width, device=self.model.device) for site, width in self.widths.items()}
        return x, {} if self.gradient is None else {site: torch.empty_like(rows) for site, rows in x.items()}

    def _ids(self, trace: ReasoningTrace, picks: Picks) -> tuple[int, ...]:
        """The tokens that must go through the model: up to the last position read, if later ones cannot act on it."""
        if not len(picks):
            return ()
        if self.gradient is not None or not self.model.is_causal:
            return trace.tokens
        return trace.tokens[: int(picks.positions.max()) + 1]

    def _passes(self, documents: Sequence[int], picks: Sequence[Picks]) -> Iterator[list[int]]:
        """Members of the window (by place in it) that share a pass: neighbours in length, padded within the budget."""
        lengths = [len(self._ids(self.traces[d], p)) for d, p in zip(documents, picks, strict=True)]
        group: list[int] = []
        for member in sorted((m for m, n in enumerate(lengths) if n), key=lambda m: lengths[m]):
            if group and lengths[member] * (len(group) + 1) > self.tokens_per_pass:
                yield group
                group = []
            group.append(member)
        if group:
            yield group

    @torch.no_grad()
    def _pass(self, documents: Sequence[int], picks: Sequence[Picks]) -> tuple[dict[Site, Tensor], dict[Site, Tensor]]:
        """States and gradients of some documents' rows."""
        tokens, real = padded([self._ids(self.traces[d], p) for d, p in zip(documents, picks, strict=True)])
        if self.gradient is None:
            # Padding stands on the right, where no token of a causal model looks: without a mask, attention is faster.
            parts = [self.model.read(tokens, None if self.model.is_causal else real, self.sites), {}]
        else:
            found = loss_gradients(self.model, tokens, real, self.sites, reduction=self.gradient)
            parts = [found.states, found.gradients]
        flat = [p.positions + row * tokens.shape[1] for row, p in enumerate(picks)]
        index, lengths = torch.cat(flat).to(self.model.device), torch.cat([p.lengths for p in picks])
        numbers = [self.traces[d].document for d in documents]
        told = f"documents {min(numbers)} to {max(numbers)}"
        x, g = (
            {site: rows.flatten(0, 1).index_select(0, index).float() for site, rows in part.items()} for part in parts
        )
        for site in self.sites:
            x[site] = pooled(require_finite(x[site], f"{site} in {told}"), lengths, self.positions.reduce)
            if g:
                whole = pooled(require_finite(g[site], f"gradients at {site} in {told}"), lengths, "mean")
                g[site] = whole * lengths[:, None].to(whole.device)
        return x, g

    # ------------------------------------------------------------------------------------------------- identity
    @property
    def fingerprint(self) -> str:
        """Hash of what decides the rows: 16 hex digits."""
        return hashlib.sha256(json.dumps(self.identity, sort_keys=True).encode()).hexdigest()[:16]

    @cached_property
    def identity(self) -> dict[str, object]:
        """What decides the rows, as plain data: model, traces, sites, positions, and the loss of gradients."""
        return {
            "model": self.model.fingerprint,
            "traces": traces_fingerprint(self.traces),
            "sites": [str(site) for site in self.sites],
            "positions": self.positions.describe(),
            **({} if self.gradient is None else {"gradient": self.gradient}),
        }


def padded(rows: Sequence[Sequence[int]]) -> tuple[Tensor, Tensor]:
    """Token rows padded on the right: (batch, longest) int64 ids, 0 as filler, and bool `real`, False on padding."""
    longest = max(map(len, rows))
    tokens = torch.zeros(len(rows), longest, dtype=torch.int64)
    real = torch.zeros(len(rows), longest, dtype=torch.bool)
    for i, row in enumerate(rows):
        tokens[i, : len(row)] = torch.tensor(row)
        real[i, : len(row)] = True
    return tokens, real


def pooled(states: Tensor, lengths: Tensor, reduce: str) -> Tensor:
    """(n, width) states of consecutive rows of `lengths` (rows,) positions each -> (rows, width) mean or max."""
    if bool((lengths == 1).all()):
        return states
    return torch.segment_reduce(states, reduce, lengths=lengths.to(states.device), axis=0)


def _check_gradient(gradient: str | None, positions: Positions) -> None:
    if gradient is not None and gradient not in REDUCTIONS:
        raise SettingError(f"gradient={gradient!r}.{nearest(gradient, REDUCTIONS)} Use {' or '.join(REDUCTIONS)}.")
    if gradient is not None and positions.reduce == "max":
        raise SettingError("a maximum over states has no one gradient. Pool by the mean, or read single tokens.")


def _check_traces(traces: Sequence[ReasoningTrace], model: HookedModel) -> None:
    if not traces:
        raise DataError("there are no traces to read. Check the file or the sampling that should have made them.")
    number, times = Counter(t.document for t in traces).most_common(1)[0]
    if times > 1:
        raise DataError(
            f"document number {number} occurs {times} times; rows could not be told apart. Renumber the traces."
        )
    largest, longest = max(max(t.tokens) for t in traces), max(len(t.tokens) for t in traces)
    if largest >= model.vocab_size:
        raise DataError(
            f"token id {largest} is outside the vocabulary of {model.name} ({model.vocab_size}): "
            "the traces were tokenised for another model. Tokenise them with this model's tokenizer."
        )
    context = getattr(getattr(model.model, "config", None), "max_position_embeddings", None)
    if context is not None and longest > context:
        raise DataError(f"a text has {longest} tokens; {model.name} reads at most {context}. Cut or split long texts.")
