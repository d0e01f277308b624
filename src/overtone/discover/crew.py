"""Several processes that generate: each holds its own copy of the subject and uses one core.

With one worker everything runs in this process. Small models gain most: their matrix products are too short to share.
"""

from __future__ import annotations

import multiprocessing
import os
import threading
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from typing import Any

from overtone.core.memory import give_back
from overtone.core.progress import track
from overtone.data.traces import ReasoningTrace
from overtone.discover.settings import DiscoverSettings
from overtone.discover.subject import Prompt, Subject, make_subject

_subject: Subject | None = None  # of a worker process, set once when it starts


@dataclass(frozen=True)
class Task:
    """Prompts to answer under one arm (a sequence of steerings); keys name the random numbers of each row; dose goes
    into the outcomes."""

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
    import signal

    import torch

    leave_with_owner()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the process that owns the crew
    torch.set_num_threads(root_threads)
    _subject = make_subject(DiscoverSettings.from_dict(settings))


def leave_with_owner() -> None:
    """Let this worker process end when the one that started it does, however that ends: a killed owner cannot say
    goodbye, and its workers would wait for tasks forever."""
    owner = multiprocessing.parent_process()
    if owner is None:
        return

    def wait() -> None:
        owner.join()
        os._exit(1)

    threading.Thread(target=wait, daemon=True).start()


def _work(bundle: list[Task], settings: dict[str, Any]) -> list[Answers]:
    assert _subject is not None
    found = answer(_subject, bundle, DiscoverSettings.from_dict(settings))
    give_back()
    return found


def answer(subject: Subject, bundle: Sequence[Task], settings: DiscoverSettings) -> list[Answers]:
    """Generate and grade tasks that ask the same prompts, together in this process."""
    from overtone.steering.generate import Sampling, generate_arms

    s, first = settings.sampling, bundle[0]
    sampling = Sampling(s.max_new_tokens, s.temperature, settings.seed, s.batch_rows)
    metas = [{**p.meta, "group": p.group} for p in first.prompts]
    arms = {task.name: task.arm for task in bundle}
    found = generate_arms(
        subject.model, [p.ids for p in first.prompts], arms, sampling, row_keys=first.keys, metas=metas, quiet=True
    )
    return [Answers(t.name, found[t.name], [_outcome(subject, one, t.dose) for one in found[t.name]]) for t in bundle]


def _outcome(subject: Subject, trace: ReasoningTrace, dose: float) -> dict[str, Any]:
    return {k: v for k, v in subject.outcome(trace, dose).items() if v == v}  # NaN: not known


def bundles(tasks: Sequence[Task], rows: int) -> list[list[Task]]:
    """Tasks put together while they ask the same prompts and have at most `rows` rows in all: full batches are fast."""
    made: list[list[Task]] = []
    for task in tasks:
        last = made[-1] if made else None
        same = last is not None and last[0].keys == task.keys and last[0].prompts is task.prompts
        if last is not None and same and (len(last) + 1) * len(task.prompts) <= rows:
            last.append(task)
        else:
            made.append([task])
    return made


class Crew:
    """Answers tasks with `settings.workers` processes, started when first needed; use it in a `with` block."""

    def __init__(self, subject: Subject, settings: DiscoverSettings) -> None:
        self.subject, self.settings, self._pool = subject, settings, None

    def __enter__(self) -> Crew:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if self._pool is None:
            return
        workers = list((self._pool._processes or {}).values())  # no public way to the pool's own processes
        self._pool.shutdown(wait=kind is None, cancel_futures=True)
        if kind is not None:  # interrupted: what a worker still computes would be thrown away
            for process in workers:
                process.terminate()

    def each(self, tasks: Sequence[Task], label: str) -> Iterator[Answers]:
        """Answers as they come, in any order; progress counts bundles of tasks."""
        made = bundles(tasks, self.settings.sampling.batch_rows)
        if self.settings.workers == 1 or len(made) < 2:
            for bundle in track(made, label):
                yield from answer(self.subject, bundle, self.settings)
            return
        plain = self.settings.to_dict()
        if self._pool is None:
            self._pool = ProcessPoolExecutor(
                self.settings.workers, multiprocessing.get_context("spawn"), initializer=_start, initargs=(plain, 1)
            )
        waiting = [self._pool.submit(_work, bundle, plain) for bundle in made]
        try:
            for future in track(as_completed(waiting), label, total=len(waiting)):
                yield from future.result()
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
