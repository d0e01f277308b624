"""Several processes that generate: each holds its own copy of the subject and uses one core.

With one worker everything runs in this process. Small models gain most: their matrix products are too short to share.
"""

from __future__ import annotations

import multiprocessing
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from typing import Any

from overtone.core.progress import track
from overtone.data.traces import ReasoningTrace
from overtone.discover.settings import DiscoverSettings
from overtone.discover.subject import Prompt, Subject, make_subject

_subject: Subject | None = None  # of a worker process, set once when it starts


@dataclass(frozen=True)
class Task:
    """Prompts to answer under one arm (a sequence of steerings); keys name the random numbers of each row; dose goes into
    the outcomes."""

    name: str
    prompts: tuple[Prompt, ...]
    keys: tuple[int, ...]
    arm: tuple[Any, ...] = ()
    dose: float = 0.0


@dataclass(frozen=True)
class Answers:
    """What came of a task: traces in the order of its prompts, and one outcome row (see evaluate.outcomes) each."""

    name: str
    traces: list[ReasoningTrace]
    outcomes: list[dict[str, Any]]


def _start(settings: dict[str, Any], root_threads: int) -> None:
    global _subject
    import torch

    torch.set_num_threads(root_threads)
    _subject = make_subject(DiscoverSettings.from_dict(settings))


def _work(task: Task, settings: dict[str, Any]) -> Answers:
    assert _subject is not None
    return answer(_subject, task, DiscoverSettings.from_dict(settings))


def answer(subject: Subject, task: Task, settings: DiscoverSettings) -> Answers:
    """Generate and grade one task in this process."""
    from overtone.steering.generate import generate

    s = settings.sampling
    metas = [{**p.meta, "group": p.group} for p in task.prompts]
    traces = generate(
        subject.model, [p.ids for p in task.prompts], steering=task.arm, max_new_tokens=s.max_new_tokens,
        temperature=s.temperature, seed=settings.seed, row_keys=task.keys, batch_rows=s.batch_rows, metas=metas, quiet=True,
    )  # fmt: skip
    rows = [subject.outcome(t, task.dose) for t in traces]
    return Answers(task.name, traces, [{k: v for k, v in row.items() if v == v} for row in rows])  # NaN: not known


class Crew:
    """Answers tasks with `settings.workers` processes, started when first needed; use it in a `with` block."""

    def __init__(self, subject: Subject, settings: DiscoverSettings) -> None:
        self.subject, self.settings, self._pool = subject, settings, None

    def __enter__(self) -> Crew:
        return self

    def __exit__(self, *_: object) -> None:
        if self._pool is not None:
            self._pool.shutdown(wait=False, cancel_futures=True)

    def each(self, tasks: Sequence[Task], label: str) -> Iterator[Answers]:
        """Answers as they come, in any order; progress counts tasks."""
        if self.settings.workers == 1 or len(tasks) < 2:
            for task in track(tasks, label):
                yield answer(self.subject, task, self.settings)
            return
        plain = self.settings.to_dict()
        if self._pool is None:
            self._pool = ProcessPoolExecutor(
                self.settings.workers, multiprocessing.get_context("spawn"), initializer=_start, initargs=(plain, 1)
            )
        waiting = [self._pool.submit(_work, task, plain) for task in tasks]
        try:
            for future in track(as_completed(waiting), label, total=len(waiting)):
                yield future.result()
        except BaseException:
            for future in waiting:
                future.cancel()
            raise

    def all(self, tasks: Sequence[Task], label: str) -> Mapping[str, Answers]:
        """All answers by the name of their task."""
        return {found.name: found for found in self.each(tasks, label)}


def in_chunks(name: str, prompts: Sequence[Prompt], size: int) -> list[Task]:
    """Plain generation of many prompts as tasks of at most `size` rows; keys number the prompts through."""
    return [
        Task(f"{name} {i}", tuple(prompts[i : i + size]), tuple(range(i, min(i + size, len(prompts)))))
        for i in range(0, len(prompts), size)
    ]
