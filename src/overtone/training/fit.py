"""Training: one loop that knows no method.

    fitted = fit(TopK(n_latents=320, k=8), states, n_tokens=1_000_000)
    fitted.dictionary.encode(states)

Interrupted trainings (Ctrl-C) save themselves where a checkpoint folder is given and go on from there, bit for bit on
CPU.
"""

import json
import math
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from numbers import Integral
from pathlib import Path
from typing import Any

import torch

from overtone.core.devices import usable
from overtone.core.errors import SettingError, WorkerError
from overtone.core.seeds import torch_generator
from overtone.core.settings import require
from overtone.core.sites import Site, parse_sites
from overtone.dictionaries.dictionary import Dictionary
from overtone.dictionaries.kernels import memory
from overtone.dictionaries.kernels.dispatch import kernels_for
from overtone.dictionaries.normalisers import spread_of
from overtone.dictionaries.preset import Preset
from overtone.dictionaries.storage import save_dictionary
from overtone.training.checkpoint import load_checkpoint, save_checkpoint
from overtone.training.distributed.join import Sharing, join
from overtone.training.distributed.world import World
from overtone.training.feed import FIRST_ROWS, Ask, Feed, make_feed
from overtone.training.record import Display, Record
from overtone.training.run import Run
from overtone.training.schedules import Schedule

RECORDS = 50  # records per training unless asked otherwise


@dataclass(frozen=True)
class Job:
    """One dictionary to train: preset, site (None where the source holds one only; several for a crosscoder, whose
    views are concatenated in this order), learning rate (None: the preset's), seed of its initial values (None: the
    training's), a name for messages and records, and the site to predict, for transcoders. Raises SettingError if the
    preset is none, if it predicts and there is no target or the other way round, if it reads fewer sites, or for a site
    that is named twice."""

    preset: Preset
    site: Site | tuple[Site, ...] | None = None
    lr: float | None = None
    seed: int | None = None
    name: str = ""
    target: Site | None = None

    def __post_init__(self) -> None:
        _require_preset(self.preset)
        require(
            len(self.sites) < 2 or self.preset.several,
            f"{self.preset.name} reads the states of one site, and {len(self.sites)} are named. Name one, or train a "
            "crosscoder, which reads several.",
        )
        predicts = "y" in self.preset.needs
        wish = "predicts the states of another site: name it (target=..., or --target on the command line)"
        plain = "reconstructs its own states and takes no target"
        require(predicts == (self.target is not None), f"{self.preset.name} {wish if predicts else plain}.")
        twice = next((site for site in self.sites if self.sites.count(site) > 1), None)
        require(
            twice is None,
            f"{twice} is named twice: views are states of different places. For one place of two models give each a "
            f"name (AlignedSources): site=('base:{twice}', 'chat:{twice}').",
        )

    @property
    def sites(self) -> tuple[Site, ...]:
        """All sites whose states are read, () where the source holds one only."""
        return self.site if isinstance(self.site, tuple) else () if self.site is None else (self.site,)

    @property
    def ask(self) -> Ask:
        """What it wants of each row."""
        return Ask(self.sites, self.target, "g" in self.preset.needs)

    @property
    def label(self) -> str:
        """The name, or what says as much."""
        return self.name or " ".join(filter(None, (self.preset.name, str(self.ask))))


def _require_preset(preset: Any) -> None:
    """Raise SettingError for a preset's name, its class, or anything else that is no preset."""
    found = f"the class {preset.__name__}" if isinstance(preset, type) else f"{type(preset).__name__} {preset!r}"
    require(
        isinstance(preset, Preset),
        f"what is trained is a preset with its settings, such as TopK(n_latents=512, k=16); got {found[:80]}.",
    )


@dataclass(frozen=True)
class Fitted:
    """A trained dictionary (eval mode, no gradients), the job it is from, the course of its training, the kernels that
    it ran on ("" where none are used), and from how many rows it was made, where that was at once."""

    dictionary: Dictionary
    job: Job
    record: tuple[Record, ...] = ()
    seed: int = 0
    kernels: str = ""
    n_rows: int = 0

    def save(
        self, folder: str | Path, *, sources: Mapping[str, str] | None = None, facts: Mapping[str, Any] | None = None,
        page: str = "",
    ) -> Path:  # fmt: skip
        """Save the dictionary with its record and its site; see `save_dictionary`."""
        site = {"site": "+".join(map(str, self.job.sites))} if self.job.sites else {}
        site |= {"target": str(self.job.target)} if self.job.target else {}
        site |= {"kernels": self.kernels} if self.kernels else {}
        return save_dictionary(
            self.dictionary, folder, seed=self.seed, sources=sources, facts={**site, **(facts or {})},
            record=[r.to_dict() for r in self.record], page=page,
        )  # fmt: skip


def fit(
    preset: Preset, source: Any, *, site: Site | str | Sequence[Site | str] | None = None, lr: float | None = None,
    target: Site | str | None = None, name: str = "", **options: Any,
) -> Fitted:  # fmt: skip
    """Train one dictionary on a (rows, width) tensor, a mapping site -> tensor, an ActivationBatch or an activation
    source.

    site: one, or several for a crosscoder (also "residual.3+residual.4", and of two models, see `AlignedSources`,
    "base:residual.3+chat:residual.3"); lr: peak learning rate of Adam (None: the
    preset's own); target: site to predict, for transcoders; name: for messages and records; options: as for
    `fit_many`, n_tokens among them.
    """
    several = None if site is None else parse_sites(site)
    only = several[0] if several and len(several) == 1 else several
    job = Job(preset, only, lr, name=name, target=None if target is None else Site.parse(target))
    return fit_many([job], source, **options)[0]


def fit_many(
    jobs: Sequence[Job], source: Any, *, n_tokens: int, batch_rows: int = 2048, seed: int = 0,
    schedule: Schedule | None = None, device: str = "cpu", checkpoint: str | Path | None = None, resume: bool = True,
    checkpoint_every_s: float = 60.0, record_every: int | None = None,
    on_record: Callable[[Record], None] | None = None, quiet: bool | None = None, split: str | None = None,
) -> list[Fitted]:  # fmt: skip
    """Train several dictionaries on one stream of states; each sees the same batches. Returns them in the jobs' order.

    n_tokens: rows to train on, over as many epochs as that takes; batch_rows: rows per update, n_tokens at most;
    record_every: tokens between two records (None: 50 records); checkpoint: folder to save to, every so many
    seconds, at the end and on Ctrl-C, and to resume from if `resume`; device: where they are trained, "cpu" or,
    say, "cuda:1" (what is fitted as a whole is fitted on the CPU); split: how the processes that torchrun started
    share the work, by "rows" of each batch or "latents" of each dictionary (None: there is one). The first one
    shows and saves. All of them return the same, but that with "latents" only the first one has the dictionaries:
    those of the others know their sizes and raise CapabilityError for everything else. Raises SettingError,
    DataError or ShapeError for what cannot be trained on or with, StoreError for a checkpoint of another training,
    DivergenceError when a loss is no longer finite, CapabilityError for a dictionary that cannot be split so,
    WorkerError when another process has ended.
    """
    require(bool(jobs), "there is nothing to train: give at least one job.")
    whole = all(isinstance(n, Integral) and n >= 1 for n in (n_tokens, batch_rows))
    require(whole, f"n_tokens={n_tokens} and batch_rows={batch_rows}: use whole numbers of at least 1.")
    n_tokens, batch_rows = int(n_tokens), min(int(batch_rows), int(n_tokens))
    jobs = [replace(job, seed=seed if job.seed is None else job.seed) for job in jobs]
    feed = make_feed(source, list(dict.fromkeys(job.ask for job in jobs)), batch_rows, seed)
    schedule, world = schedule or Schedule(), join(split)
    device = usable(device if world is None else world.place(device))
    sharing = Sharing(split, world, device)
    found: dict[int, Fitted] = {i: _fit_whole(job, feed, n_tokens) for i, job in enumerate(jobs) if job.preset.whole}
    stepped = {i: _start(job, feed, schedule, n_tokens, sharing) for i, job in enumerate(jobs) if not job.preset.whole}
    if stepped:
        folder = None if checkpoint is None else Path(checkpoint)
        identity = _identity(jobs, n_tokens, batch_rows, seed, schedule, feed.fingerprint if folder or world else "")
        saver = _Saver(folder, identity, checkpoint_every_s, list(stepped.values()), world)
        every = record_every or max(1, n_tokens // RECORDS)
        try:
            _loop(list(stepped.values()), [jobs[i].ask for i in stepped], feed, saver, resume, every, on_record, quiet)
        finally:
            memory.release()
    for i, run in stepped.items():
        model = run.dictionary().eval().cpu().requires_grad_(False)
        found[i] = Fitted(model, jobs[i], tuple(run.records), jobs[i].seed or 0, kernels_for(device).name)
    return [found[i] for i in range(len(jobs))]


def _loop(
    runs: list[Run], asks: list[Ask], feed: Feed, saver: "_Saver", resume: bool, every: int,
    on_record: Callable[[Record], None] | None, quiet: bool | None,
) -> None:  # fmt: skip
    n_tokens, display, stop = runs[0].n_tokens, Display(runs[0].n_tokens, quiet or not saver.first), False
    if resume:
        feed.position = saver.restore() or feed.position
    if runs[0].tokens >= n_tokens:
        return
    batches = feed.batches()
    with _deferred_interrupt() as interrupted, saver.on_interrupt(feed):
        while runs[0].tokens < n_tokens and not stop:
            batch = next(batches)
            with saver.mid_step():
                for run, ask in zip(runs, asks, strict=True):
                    run.advance(*batch[ask].to(run.model.decoder.centre().device))
            saver.position = dict(feed.position)
            if runs[0].tokens % every < len(batch[asks[0]].x) or runs[0].tokens >= n_tokens:
                records = [run.measure() for run in runs]
                display.show(records)
                if on_record is not None and saver.first:
                    for record in records:
                        on_record(record)
            stop = saver.save_if_due(interrupted())
        display.close()
        if stop:
            raise KeyboardInterrupt
    saver.save()


def _start(job: Job, feed: Feed, schedule: Schedule, n_tokens: int, sharing: Sharing) -> Run:
    widths = feed.widths()[job.ask]
    preset = job.preset.of_views(widths) if len(widths) > 1 else job.preset
    first = feed.sample(job.ask, FIRST_ROWS)
    other = {} if first.y is None else {"width_out": first.y.shape[1]}
    draw = torch_generator(job.seed or 0, "dictionary")
    dictionary = sharing.made(preset.n_latents, lambda: preset.build(sum(widths), draw, **other))
    dictionary.origin = {"preset": preset.name, "settings": preset.to_dict()}
    lr = preset.rate if job.lr is None else job.lr
    require(0 < lr < math.inf, f"lr={lr} for {job.label}: use a positive, finite learning rate.")
    run = Run(
        job.label, preset, dictionary, lr=lr, schedule=schedule, n_tokens=n_tokens, share=sharing.share,
        seed=job.seed or 0,
    )  # fmt: skip
    run.begin(*first.to(run.model.decoder.centre().device)[:2])
    return run


def _fit_whole(job: Job, feed: Feed, n_tokens: int) -> Fitted:
    rows = feed.sample(job.ask, n_tokens).x.cpu()
    spread_of(rows)  # complains of rows that do not vary before the work, not after it
    draw = torch_generator(job.seed or 0, "dictionary")
    if "where" in job.preset.needs:
        dictionary = job.preset.fitted_at(rows, feed.origins(n_tokens), draw)
    else:
        dictionary = job.preset.fitted(rows, draw)
    dictionary.origin = {"preset": job.preset.name, "settings": job.preset.to_dict()}
    return Fitted(dictionary.eval().requires_grad_(False), job, (), job.seed or 0, n_rows=len(rows))


def _identity(
    jobs: Sequence[Job], n_tokens: int, batch_rows: int, seed: int, schedule: Schedule, data: str
) -> dict[str, Any]:
    stepped = [job for job in jobs if not job.preset.whole]
    return {
        "jobs": [[job.preset.name, job.preset.to_dict(), str(job.ask), job.lr] for job in stepped],
        "seeds": [job.seed for job in stepped],
        "n_tokens": n_tokens,
        "batch_rows": batch_rows,
        "seed": seed,
        "schedule": schedule.to_dict(),
        "data": data,
    }


class _Saver:
    """Knows when and where to save, and that the middle of a step is no time for it. Where processes train together,
    all save at the same time and the first one writes."""

    def __init__(
        self, folder: Path | None, identity: dict[str, Any], every_s: float, runs: list[Run], world: World | None
    ) -> None:
        self.folder, self.identity, self.every_s, self.runs, self.world = folder, identity, every_s, runs, world
        self.first = world is None or world.first
        if world is not None:
            world.require_same(json.dumps(identity, sort_keys=True), "settings or data")
        self.position: dict[str, int] = {}
        self.last, self.inside, self.stopping = time.monotonic(), False, False

    def restore(self) -> dict[str, int] | None:
        """The position to go on from, with all runs restored."""
        if self.folder is not None:
            self.position = load_checkpoint(self.folder, self.runs, self.identity) or {}
        return self.position or None

    @contextmanager
    def mid_step(self) -> Iterator[None]:
        """While inside, the runs are not in one state."""
        self.inside = True
        yield
        self.inside = False

    @contextmanager
    def on_interrupt(self, feed: Feed) -> Iterator[None]:
        """Save before an interrupt goes its way."""
        try:
            yield
        except KeyboardInterrupt:
            if not self.inside and (self.world is None or self.stopping):
                self.save()
            raise

    def save_if_due(self, interrupted: bool) -> bool:
        """Save if the last time is long enough ago. Returns whether any process was interrupted."""
        flags = interrupted, time.monotonic() - self.last >= self.every_s
        self.stopping, due = flags if self.world is None else self.world.any(*flags)
        if due:
            self.save()
        return self.stopping

    def save(self) -> None:
        """Save, unless there is nothing to save or no folder."""
        if self.folder is None or not self.position:
            return
        bounds = (p.detach().aminmax() for run in self.runs for p in run.model.parameters() if p.numel())
        broken = not all(bool(torch.stack(ends).isfinite().all()) for ends in bounds)  # a mask would be as large as p
        if broken if self.world is None else self.world.any(broken)[0]:
            for run in self.runs:
                run.measure()
            raise SettingError("parameters are not finite although losses are; this cannot be resumed.")
        written = False
        try:
            save_checkpoint(self.folder, self.runs, self.position, self.identity, first=self.first)
            written = True
        finally:  # nobody goes on, or reads, before it is written
            failed = self.world is not None and self.world.any(not written)[0]
        if failed:
            raise WorkerError(
                f"{self.world} stops, since another one could not write {self.folder}: look for the error among its "
                "messages. What was saved before is complete; start all of them again to go on from there."
            )
        self.last = time.monotonic()


@contextmanager
def _deferred_interrupt() -> Iterator[Callable[[], bool]]:
    """Yield a function that says whether Ctrl-C was pressed; a second press interrupts at once. Outside the main thread
    nothing is changed. The old handler comes back at the end."""
    pressed: list[int] = []
    if threading.current_thread() is not threading.main_thread():
        yield lambda: False
        return
    before = signal.getsignal(signal.SIGINT)

    def note(number: int, frame: Any) -> None:
        if pressed:
            raise KeyboardInterrupt
        pressed.append(number)

    signal.signal(signal.SIGINT, note)
    try:
        yield lambda: bool(pressed)
    finally:
        signal.signal(signal.SIGINT, before)
