"""Several tasks and several processes give what one task after the other gives in this process."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from overtone.core.errors import DataError
from overtone.core.seeds import torch_generator
from overtone.directions.direction import unit_direction
from overtone.discover.crew import Crew, Task, answer, bundles, in_chunks
from overtone.discover.vectors import add_arm, boundaries


@pytest.fixture
def tasks(found):
    """The same eight prompts under no steering and under two doses of a random direction; then other prompts."""
    import torch

    prompts, other = tuple(found.subject.prompts("train", 8)), tuple(found.subject.prompts("test", 5))
    vector = torch.randn(32, generator=torch_generator(0, "crew"))
    rows = torch.randn(50, 32, generator=torch_generator(0, "rows"))
    direction = unit_direction(vector, "residual.1", model=found.subject.model.fingerprint, rows=rows)
    when, keys = boundaries(found.material), tuple(range(8))
    steered = [Task(f"dose {d:g}", prompts, keys, add_arm(direction, d, when), d) for d in (-1.0, 1.0)]
    return [Task("plain", prompts, keys), *steered, Task("other", other, tuple(range(5)))]


def same(one, other) -> bool:
    return [t.tokens for t in one.traces] == [t.tokens for t in other.traces] and one.outcomes == other.outcomes


def test_tasks_share_a_batch_if_they_ask_the_same_and_fit_into_it(tasks):
    names = [[t.name for t in bundle] for bundle in bundles(tasks, rows=16)]
    assert names == [["plain", "dose -1"], ["dose 1"], ["other"]]
    assert [len(bundle) for bundle in bundles(tasks, rows=1)] == [1, 1, 1, 1]
    assert [len(bundle) for bundle in bundles(tasks, rows=1000)] == [3, 1]


def test_a_bundle_answers_like_its_tasks_one_by_one(found, tasks):
    alone = {t.name: answer(found.subject, [t], found.settings)[0] for t in tasks}
    for bundle in bundles(tasks, rows=1000):
        for together in answer(found.subject, bundle, found.settings):
            assert same(together, alone[together.name])
    assert not same(alone["dose 1"], alone["plain"])  # the steering was in force


def test_an_outcome_carries_its_dose_and_its_problem(found, tasks):
    (answers,) = answer(found.subject, tasks[2:3], found.settings)
    assert [row["dose"] for row in answers.outcomes] == [1.0] * 8
    assert [row["problem"] for row in answers.outcomes] == [p.group for p in tasks[2].prompts]
    assert all(value == value for row in answers.outcomes for value in row.values())  # what is not known is not there


def test_chunks_cover_every_prompt_once_with_its_own_key(found):
    prompts = found.subject.prompts("train", 11)
    chunks = in_chunks("x", prompts, 4)
    assert [len(c.prompts) for c in chunks] == [4, 4, 3]
    assert [k for c in chunks for k in c.keys] == list(range(11))
    assert [p for c in chunks for p in c.prompts] == prompts


def test_worker_processes_answer_like_this_process(found, tasks):
    with Crew(found.subject, found.settings) as here:
        expected = here.all(tasks, "here")
    settings = found.settings.replaced(workers=2)
    with Crew(found.subject, settings) as crew:
        assert crew._pool is None  # processes start when there is work for them
        answers = crew.all(tasks, "there")
        assert all(same(answers[name], expected[name]) for name in expected)
        workers = list(crew._pool._processes.values())
        broken = [Task(n, (), (), ()) for n in ("one", "two")]
        with pytest.raises(DataError, match="no prompts"):  # a worker's error is the caller's
            crew.all([broken[0], tasks[0], broken[1]], "broken")
    assert workers and not any(process.is_alive() for process in workers)


OWNER = """
import multiprocessing, os, time
from concurrent.futures import ProcessPoolExecutor
from overtone.discover.crew import leave_with_owner

if __name__ == "__main__":
    pool = ProcessPoolExecutor(1, multiprocessing.get_context("spawn"), initializer=leave_with_owner)
    print(pool.submit(os.getpid).result(), flush=True)
    time.sleep(120)
"""


@pytest.mark.skipif(not Path("/proc").is_dir(), reason="asks the system in Linux's way whether a process runs")
def test_workers_end_with_a_killed_owner(tmp_path):
    script = tmp_path / "owner.py"
    script.write_text(OWNER)
    owner = subprocess.Popen([sys.executable, script], stdout=subprocess.PIPE, text=True)
    worker = int(owner.stdout.readline())
    owner.kill()
    owner.wait()
    owner.stdout.close()
    for _ in range(600):
        if not alive(worker):
            return
        time.sleep(0.05)
    os.kill(worker, signal.SIGKILL)
    pytest.fail("the worker outlived its owner")


def alive(pid):
    """Whether a process runs; one that has ended and was not fetched by anybody does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False
