"""Generation with edits: KV-cached, left padded, several arms in one batch, finished rows leave it.

Laws, tested: the result of a row does not depend on the other rows of its batch (up to the rounding of matrix
kernels, which a sampled token meets with probability about 1e-6); generation with the cache equals generation without
it under every `When`; two arms with the same row keys share their random numbers.
"""

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from overtone.core.errors import DataError
from overtone.core.progress import track
from overtone.core.seeds import derive
from overtone.core.settings import Settings, require
from overtone.data.traces import ReasoningTrace
from overtone.models.decoding import KeyValues, select_rows
from overtone.models.hooks import Call
from overtone.steering.plan import Arm, Plan
from overtone.steering.sampling import choose, row_uniforms

if TYPE_CHECKING:
    from overtone.models.hooked import HookedModel


class IdleSteeringWarning(UserWarning):
    """A steering was in force and applied to no position of any row: its `When` never held."""


@dataclass(frozen=True)
class Sampling(Settings):
    """How to generate. max_new_tokens per row; temperature (0: greedy); seed of the random numbers; batch_rows: rows
    at once, a matter of speed and memory only; compact_at: share of finished rows at which they leave the batch (0:
    at once).
    """

    max_new_tokens: int = 256
    temperature: float = 1.0
    seed: int = 0
    batch_rows: int = 256
    compact_at: float = 0.125

    def __post_init__(self) -> None:
        require(self.max_new_tokens > 0, f"max_new_tokens={self.max_new_tokens}: generate at least 1 token.")
        require(self.temperature >= 0, f"temperature={self.temperature}: use 0 (greedy) or more.")
        require(self.batch_rows > 0, f"batch_rows={self.batch_rows}: use 1 or more.")
        require(0 <= self.compact_at <= 1, f"compact_at={self.compact_at}: a share between 0 and 1.")


def generate(
    model: "HookedModel",
    prompts: Sequence[Sequence[int]],
    *,
    steering: Arm = (),
    max_new_tokens: int,
    temperature: float = 1.0,
    seed: int = 0,
    row_keys: Sequence[int] | None = None,
    batch_rows: int = 256,
    eos: Sequence[int] | None = None,
    metas: Sequence[Mapping[str, Any]] | None = None,
    quiet: bool | None = None,
) -> list[ReasoningTrace]:
    """One response to each prompt, in the order of the prompts.

    prompts: token ids, start token included, without padding. steering: `Steering`s and `LogitBias`es, in force
    together. row_keys: one integer per prompt that names its random numbers (default: its index). eos: ids that end a
    row (default: the tokenizer's); the end token is part of the response. metas: plain data to carry along; "group"
    among them sets the trace's group (default: a hash of the prompt, so that equal prompts are never split).
    Each trace's meta says `finished` (an end token was written), `n_edited` (positions edited) and `row_key`.
    Warns with IdleSteeringWarning if a steering applied to no position at all. Raises DataError for no prompts or an
    empty one, SiteError or ShapeError if a direction does not belong to the model.
    """
    sampling = Sampling(max_new_tokens, temperature, seed, batch_rows)
    arms = {"": steering}
    return generate_arms(model, prompts, arms, sampling, row_keys=row_keys, eos=eos, metas=metas, quiet=quiet)[""]


def generate_arms(
    model: "HookedModel",
    prompts: Sequence[Sequence[int]],
    arms: Mapping[str, Arm],
    sampling: Sampling,
    *,
    row_keys: Sequence[int] | None = None,
    eos: Sequence[int] | None = None,
    metas: Sequence[Mapping[str, Any]] | None = None,
    quiet: bool | None = None,
) -> dict[str, list[ReasoningTrace]]:
    """`generate` for several arms at once, {name: steerings}: the same prompts and random numbers under each of them.

    Equals one `generate` per arm, and is faster: rows of different arms fill the same batches.
    """
    keys = list(range(len(prompts)) if row_keys is None else row_keys)
    _check(prompts, arms, keys, metas)
    _check_length(model, prompts, sampling.max_new_tokens)
    jobs = [_Job(p, a) for a in range(len(arms)) for p in range(len(prompts))]
    jobs.sort(key=lambda job: len(prompts[job.prompt]))  # stable: rows of one width share a batch, little padding
    done: dict[_Job, _Row] = {}
    ends = torch.tensor(sorted(_end_ids(model) if eos is None else eos), dtype=torch.int64)
    n = sampling.batch_rows
    batches = [jobs[i : i + n] for i in range(0, len(jobs), n)]
    uniforms = row_uniforms(sampling.seed, keys, sampling.max_new_tokens) if sampling.temperature else None
    for batch in track(batches, "generating", quiet=quiet):
        plan = Plan(model, list(arms.values()), torch.tensor([job.arm for job in batch]))
        noise = None if uniforms is None else uniforms[[job.prompt for job in batch]]
        rows = _Batch(model, [prompts[job.prompt] for job in batch], plan, noise, ends, sampling).run()
        done.update(zip(batch, rows, strict=True))
    result = {}
    for a, (name, arm) in enumerate(arms.items()):
        rows = [done[_Job(p, a)] for p in range(len(prompts))]
        _warn_if_idle(name, arm, rows)
        result[name] = [_trace(p, prompts[p], row, keys[p], metas) for p, row in enumerate(rows)]
    return result


@dataclass(frozen=True)
class _Job:
    """One row to generate."""

    prompt: int
    arm: int


@dataclass(frozen=True)
class _Row:
    """One generated row: the new ids, whether it ended by itself, positions edited per steering."""

    ids: tuple[int, ...]
    finished: bool
    edited: tuple[int, ...]


@dataclass
class _Batch:
    """Rows that are generated together. Columns are shared: prompts are padded on the left, so that all end in one
    column.
    """

    model: "HookedModel"
    prompts: Sequence[Sequence[int]]
    plan: Plan
    uniforms: Tensor | None
    ends: Tensor
    sampling: Sampling
    rows: dict[int, tuple[tuple[int, ...], bool]] = field(default_factory=dict)

    def run(self) -> list[_Row]:
        """All rows, in the order of the prompts."""
        self._lay_out()
        with self.model.editing(self.plan.editors()):
            for step in range(self.sampling.max_new_tokens):
                self._step(step)
                if self.ended.all():
                    break
                self._compact(at_least=self.sampling.compact_at)
        self._hand_over(torch.arange(len(self.ids)))
        counts = self.plan.counts.tolist()
        return [_Row(*self.rows[i], tuple(counts[i])) for i in range(len(self.prompts))]

    def _lay_out(self) -> None:
        n, self.width = len(self.prompts), max(map(len, self.prompts))
        device, columns = self.model.device, self.width + self.sampling.max_new_tokens
        self.tokens = torch.zeros(n, columns, dtype=torch.int64, device=device)
        self.real = torch.zeros(n, columns, dtype=torch.bool, device=device)
        for i, prompt in enumerate(self.prompts):
            self.tokens[i, self.width - len(prompt) : self.width] = torch.tensor(prompt, device=device)
            self.real[i, self.width - len(prompt) : self.width] = True
        self.seen, self.cache = self.width, None
        self.ids = torch.arange(n)
        self.ended = torch.zeros(n, dtype=torch.bool, device=device)
        self.length = torch.zeros(n, dtype=torch.int64, device=device)

    def _step(self, step: int) -> None:
        tokens, real = self.tokens[:, : self.seen], self.real[:, : self.seen]
        logits, self.cache = self.model.forward(
            tokens, real, cache=self.cache, prompt_columns=self.width, last_only=True
        )
        last = self.plan.biased(logits[:, -1:], Call(tokens, real, self.seen - 1, self.width))[:, 0]
        noise = self.length.float() if self.uniforms is None else self.uniforms[self.ids, step].to(last.device)
        chosen = choose(last, noise, self.sampling.temperature)
        self.tokens[:, self.seen] = chosen
        self.real[:, self.seen] = ~self.ended
        self.length += ~self.ended
        self.ended |= torch.isin(chosen, self.ends.to(chosen.device))
        self.seen += 1

    def _compact(self, at_least: float) -> None:
        """Let finished rows leave once they are many enough: dropping them copies the cache."""
        n_ended = int(self.ended.sum())
        if n_ended == 0 or n_ended < at_least * len(self.ids):
            return
        self._hand_over(self.ended.nonzero()[:, 0])
        keep = (~self.ended).nonzero()[:, 0]
        assert isinstance(self.cache, KeyValues)
        self.cache = select_rows(self.cache, keep)
        self.tokens, self.real, self.length = self.tokens[keep], self.real[keep], self.length[keep]
        self.ended, self.ids = self.ended[keep], self.ids[keep.cpu()]
        self.plan.select(keep.cpu())

    def _hand_over(self, rows: Tensor) -> None:
        for i in rows.tolist():
            ids = tuple(self.tokens[i, self.width : self.width + int(self.length[i])].tolist())
            self.rows[int(self.ids[i])] = (ids, bool(self.ended[i]))


def _check(prompts: Sequence, arms: Mapping, keys: list[int], metas: Sequence | None) -> None:
    if not len(prompts):
        raise DataError("there are no prompts to generate from. Give at least one.")
    empty = [i for i, prompt in enumerate(prompts) if len(prompt) == 0]
    if empty:
        raise DataError(f"prompt {empty[0]} has no token. Start it with the model's start token, or drop it.")
    if not arms:
        raise DataError("there is no arm. Use {'unsteered': ()} for plain generation.")
    if len(keys) != len(prompts) or (metas is not None and len(metas) != len(prompts)):
        raise DataError(f"row_keys and metas need one entry for each of the {len(prompts)} prompts.")


def _check_length(model: "HookedModel", prompts: Sequence[Sequence[int]], n_new: int) -> None:
    """Refuse before the work what would fail, or decay, at the end of it."""
    longest = max(range(len(prompts)), key=lambda i: len(prompts[i]))
    if model.max_tokens is not None and len(prompts[longest]) + n_new > model.max_tokens:
        raise DataError(
            f"prompt {longest} has {len(prompts[longest])} tokens; with max_new_tokens={n_new} that is more than the "
            f"{model.max_tokens} that {model.name} was made for. Shorten the prompt or ask for fewer tokens."
        )


def _end_ids(model: "HookedModel") -> list[int]:
    """The ids that end a text: of the generation config where it names any, else the tokenizer's."""
    found = getattr(getattr(model.model, "generation_config", None), "eos_token_id", None)
    if found is None:
        found = getattr(model.tokenizer, "eos_token_id", None)
    return [] if found is None else list(found) if isinstance(found, list | tuple) else [found]


def _trace(
    index: int, prompt: Sequence[int], row: _Row, key: int, metas: Sequence[Mapping[str, Any]] | None
) -> ReasoningTrace:
    given = dict(metas[index]) if metas is not None else {}
    group = str(given.pop("group", f"{derive(0, *prompt):x}"))
    meta = {**given, "finished": row.finished, "n_edited": max(row.edited, default=0), "row_key": key}
    return ReasoningTrace(tuple(prompt), row.ids, index, group, meta)


def _warn_if_idle(name: str, arm: Arm, rows: Sequence[_Row]) -> None:
    for i, one in enumerate(arm):
        if not any(row.edited[i] for row in rows):
            where = f" of arm {name!r}" if name else ""
            warnings.warn(
                f"steering {i}{where} applied to no position in {len(rows)} rows: {one.describe()['when']} never held. "
                "Check the token ids and phases of its When.",
                IdleSteeringWarning,
                stacklevel=4,
            )
