"""One dictionary in training: its optimiser, its objectives, its maintainers, and one update."""

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import replace

from torch import Tensor

from overtone.core.errors import CapabilityError, DivergenceError
from overtone.core.tensor_files import Blocks, Readable
from overtone.dictionaries.autoencoder import Autoencoder
from overtone.dictionaries.dictionary import Dictionary
from overtone.dictionaries.kernels import memory
from overtone.dictionaries.kernels.waiting import Waiting, may_wait
from overtone.dictionaries.maintainers.base import Observation
from overtone.dictionaries.maintainers.firing import Firing
from overtone.dictionaries.preset import Preset
from overtone.training.adam import Adam
from overtone.training.distributed.share import Alone, Share
from overtone.training.passes import Passed, divisible, in_blocks, whole
from overtone.training.record import Record
from overtone.training.schedules import Schedule
from overtone.training.step import Given, takes_dense_way
from overtone.training.surgery import operate

CLIP = 1.0  # gradient norm; losses are dimensionless, so one number serves all data


class Run:
    """The state of one training. `advance` does one update; whole() and load() save and restore everything."""

    def __init__(
        self, job: str, preset: Preset, dictionary: Dictionary, *, lr: float, schedule: Schedule, n_tokens: int,
        share: Callable[[Autoencoder], Share] = Alone, seed: int = 0,
    ) -> None:  # fmt: skip
        """share: what this process has of the training; seed: what maintainers that draw derive their numbers from."""
        if not isinstance(dictionary, Autoencoder):
            raise CapabilityError(f"{dictionary.kind} has no gradient training; its preset must fit it as a whole.")
        self.job, self.preset, self.schedule, self.n_tokens = job, preset, schedule, n_tokens
        self.share = share(dictionary)
        self.model = self.share.model
        self.objectives, self.firing = preset.objectives(), Firing(preset.window)
        self.maintainers = (self.firing, *preset.maintainers())
        for maintainer in self.maintainers:
            maintainer.seed = seed
        self.share.accept(self.objectives, self.maintainers)
        self.all_latents = any(objective.needs_all for objective in self.objectives)
        self.peaks = any(maintainer.wants_peaks for maintainer in self.maintainers)
        self.lr, self.tokens, self.records = lr, 0, list[Record]()
        trained = {name: p for name, p in self.model.named_parameters() if p.requires_grad}
        for p in trained.values():
            p.data = memory.like(p).copy_(p.data)
        self.adam = Adam(trained, CLIP, preset.betas, self.share.norm)
        self.divisible = divisible(self.model, self.objectives, self.maintainers)
        self._latest: Passed | None = None
        self._clock = (time.perf_counter(), 0)

    def begin(self, x: Tensor, y: Tensor | None = None) -> None:
        """Fit what is fitted beforehand on the first rows of states, and of targets where there are any."""
        self.model.start(x, y)
        if not self.model.centred and self.model.selection.latents_compete:
            self.model.lean_on(self.model.normaliser(x.double().mean(0)).to(self.model.decoder.centre().dtype))
        for maintainer in self.maintainers:
            maintainer.begin(self.model)

    def advance(self, x: Tensor, y: Tensor | None = None, g: Tensor | None = None) -> None:
        """One update on a batch of raw states (rows, width), with targets and gradients as in `Given`."""
        progress = self.tokens / self.n_tokens
        dead = self.share.listed("dead", self.firing.dead)
        given = Given(x, dead, progress, y, g, self.published(), self.all_latents, self.peaks)
        if self.divisible:
            given = replace(given, dense=takes_dense_way(self.model, given))
        go = in_blocks if self.divisible and given.dense else whole
        with may_wait(self.adam.parameters.values() if self.share.alone else ()) as waiting:
            passed = go(self.share, self.objectives, given, self.maintainers)
        self.share.reduce(self.adam.gradients())
        self._observe(passed, progress)
        end = min(self.tokens + len(x), self.n_tokens)  # the last batch may go beyond
        self._update(self.schedule.factor((self.tokens + end) / 2 / self.n_tokens), waiting)
        self.tokens += len(x)
        self._latest = passed

    def published(self) -> dict[str, Tensor]:
        """What the maintainers let objectives see; lists of latents by number in the whole dictionary."""
        return {
            name: self.share.listed(name, value) if key in maintainer.lists else value
            for maintainer in self.maintainers
            if maintainer.name
            for key, value in maintainer.state.items()
            for name in (f"{maintainer.name}.{key}",)
        }

    def _observe(self, passed: Passed, progress: float) -> None:
        step, rows = passed.step, len(passed.x)
        chosen, scores = (None, None) if step is None else (step.chosen, step.scores)
        seen = Observation(rows, passed.counts, chosen, progress, step, scores, passed.active, passed.peaks)
        for maintainer, tally in zip(self.maintainers, passed.tallies, strict=True):
            maintainer.observe(self.model, seen if tally is None else replace(seen, tally=tally))

    def _update(self, factor: float, waiting: Waiting) -> None:
        unit = [maintainer.unit_rows(self.model) for maintainer in self.maintainers]
        self.adam.update(self.lr * factor, unit, waiting)
        for maintainer in self.maintainers:
            maintainer.after_update(self.model)
        for maintainer in self.maintainers:
            surgery = maintainer.operate(self.model)
            if surgery is not None:
                operate(self.model, self.adam, self.maintainers, surgery)

    def measure(self) -> Record:
        """The record of the last update, which is also kept. Raises DivergenceError if the loss is not finite."""
        assert self._latest is not None, "measure() follows advance()"
        passed = self._latest
        now, (then, tokens) = time.perf_counter(), self._clock
        self._clock = now, self.tokens
        error = passed.missed.square().sum() / (passed.x - passed.x.mean(0)).square().sum()
        active = float(passed.active) / len(passed.x)
        speed = (self.tokens - tokens) / max(now - then, 1e-9)
        dead = self.share.mean_over_latents(self.firing.share())
        told = {name: value for maintainer in self.maintainers for name, value in maintainer.told().items()}
        record = Record(self.job, self.tokens, float(passed.loss), float(error), active, dead, speed, told)
        if not math.isfinite(record.loss):
            raise DivergenceError(
                f"training {self.job} diverged after {self.tokens} tokens: the loss is {record.loss}"
                f"{f' (before: {self.records[-1].loss:.3g})' if self.records else ''}. "
                f"Use a smaller learning rate (lr={self.lr / 10:.1e}, now {self.lr:.1e}), or drop extreme rows."
            )
        self.records.append(record)
        return record

    # ---------------------------------------------------------------------------------------------------- saved state
    def tensors(self) -> dict[str, Tensor]:
        """Everything that changes while training, by name: parameters, buffers, moments, maintainers' state; this
        process's own, which the next step changes."""
        found = self._fixed()
        for i, maintainer in enumerate(self.maintainers):
            found |= {f"maintainer.{i}.{name}": value.detach() for name, value in maintainer.state.items()}
        return found

    def whole(self) -> dict[str, Blocks]:
        """The same as one process would have it, to be written by the first one; see `Share.whole`."""
        return self.share.whole(self.tensors())

    def load(self, stored: Mapping[str, Readable], tokens: int, records: list[Record]) -> None:
        """Restore what `whole` gave, with the tokens seen and the records so far, after `begin`."""
        for name, tensor in self._fixed().items():
            tensor.copy_(self.share.own(name, stored[name]))
        for i, maintainer in enumerate(self.maintainers):
            for key, value in maintainer.state.items():
                name = f"maintainer.{i}.{key}"
                maintainer.state[key] = self.share.own(name, stored[name]).to(value.device, copy=True)
        self.tokens, self.records = tokens, records
        self._clock = (time.perf_counter(), tokens)

    def _fixed(self) -> dict[str, Tensor]:
        """Those whose shapes stay."""
        found = {f"model.{name}": value for name, value in self.model.state_dict().items()}
        found |= {} if self.model.middle is None else {"middle": self.model.middle}
        return found | {f"moments.{name}": value for name, value in self.adam.tensors().items()}

    def dictionary(self) -> Dictionary:
        """The whole dictionary; see `Share.dictionary`. Nothing can be trained or saved afterwards: moments are let go
        before it is put together."""
        self.adam.forget()
        self._latest = None
        self.model.settle()
        return self.share.dictionary()
