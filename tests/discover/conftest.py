"""A saved miniature with prompts, and one finished discovery of it, shared by the tests of this folder."""

from types import SimpleNamespace

import pytest

import think_aloud
from overtone.discover.crew import Crew
from overtone.discover.material import gather
from overtone.discover.pipeline import discover
from overtone.discover.run import Run
from overtone.discover.subject import make_subject


@pytest.fixture(scope="session")
def saved(tmp_path_factory):
    """model: a Qwen2 miniature's folder; thinking: a Llama miniature with think tags and a chat template; prompts."""
    folder = tmp_path_factory.mktemp("saved")
    return SimpleNamespace(
        model=think_aloud.save_model(folder / "qwen"),
        thinking=think_aloud.save_model(folder / "llama", "Llama", think=True),
        prompts=think_aloud.save_prompts(folder / "prompts.jsonl"),
    )


@pytest.fixture(scope="session")
def finished(saved, tmp_path_factory):
    """A discovery that ran to its end: settings, out (its folder), report. Leave the folder as it is."""
    settings, out = think_aloud.small_settings(saved.model, saved.prompts), tmp_path_factory.mktemp("runs") / "one"
    return SimpleNamespace(settings=settings, out=out, report=discover(settings, out))


@pytest.fixture(scope="session")
def found(finished):
    """What the finished discovery works with: run, crew, subject, material, settings. Nothing is sampled again."""
    subject, run = make_subject(finished.settings), Run(finished.out, resume=True)
    crew = Crew(subject, finished.settings)
    material = gather(run, crew, finished.settings)
    return SimpleNamespace(run=run, crew=crew, subject=subject, material=material, settings=finished.settings)
