"""Two real processes train what one process trains; what can go wrong between them ends with a clear error."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

import overtone
from overtone.core.artifacts import read_manifest
from overtone.core.errors import SettingError
from overtone.dictionaries.storage import load_dictionary
from overtone.training.fit import fit
from two_processes import LATENTS, PRESETS, SPLITS, states, train

pytestmark = pytest.mark.timeout(600)  # seconds of work for two processes, but a busy machine may give them little
BOTH = pytest.mark.parametrize("split", SPLITS)
EVERY = pytest.mark.parametrize("name", list(PRESETS))


def environment() -> dict[str, str]:
    """That of a process that imports the same overtone as this one."""
    paths = [Path(overtone.__file__).parents[1], Path(__file__).parents[1]]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, paths))}


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    """The folder that two processes leave behind, and what each of them found."""
    folder = tmp_path_factory.mktemp("pair")
    script = str(Path(__file__).parents[1] / "two_processes.py")
    command = [sys.executable, "-W", "error", script]
    processes = [
        subprocess.Popen(
            [*command, str(rank), str(folder)], env=environment(), text=True, stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        for rank in range(2)
    ]  # fmt: skip
    said = [process.communicate(timeout=500)[0] for process in processes]
    assert [process.returncode for process in processes] == [0, 3], "\n".join(said)  # the second one ends early
    return folder, json.loads((folder / "found-0.json").read_text())


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    """Preset -> what one process trains, and all of its tensors."""
    folder = tmp_path_factory.mktemp("alone")
    return {name: (train(name, folder / name), load_file(folder / name / "run-0.safetensors")) for name in PRESETS}


def agree(found: dict[str, torch.Tensor], expected: dict[str, torch.Tensor], atol: float = 2e-6) -> None:
    assert found.keys() == expected.keys()
    for name in expected:
        torch.testing.assert_close(found[name], expected[name], rtol=1e-4, atol=atol, msg=lambda m, n=name: f"{n}: {m}")


@BOTH
@EVERY
def test_two_processes_end_where_one_does(pair, alone, name, split):
    """Parameters, moments, counters, dead latents, thresholds."""
    agree(load_file(pair[0] / f"{split}-{name}" / "run-0.safetensors"), alone[name][1])


@BOTH
@EVERY
def test_two_processes_record_what_one_does(pair, alone, name, split):
    found, expected = pair[1][f"{split}-{name}"], alone[name][0].record
    assert len(found) == len(expected)
    for ours, theirs in zip(found, expected, strict=True):
        for key in ("tokens", "loss", "unexplained", "l0", "share_dead"):
            assert ours[key] == pytest.approx(getattr(theirs, key), rel=1e-4, abs=1e-6)


def test_the_comparison_includes_dead_latents_and_the_loss_that_revives_them(alone):
    for name in ("top_k", "batch_top_k"):
        assert 0 < len(alone[name][1]["maintainer.0.dead"]) < LATENTS


@BOTH
@EVERY
def test_what_is_saved_is_an_ordinary_dictionary(pair, alone, name, split):
    saved, expected = load_dictionary(pair[0] / f"dictionary-{split}-{name}"), alone[name][0].dictionary
    assert (saved.n_latents, saved.origin) == (LATENTS, expected.origin)
    torch.testing.assert_close(saved.reconstruct(states()), expected.reconstruct(states()), rtol=1e-4, atol=1e-4)


@BOTH
@EVERY
def test_with_slices_only_the_first_process_has_the_dictionary_and_the_other_is_told_so(pair, name, split):
    first, second = pair[1], json.loads((pair[0] / "found-1.json").read_text())
    for did in ("encoded", "saved"):
        assert first[f"{did} {split}-{name}"] == "no error"
        said = second[f"{did} {split}-{name}"]
        if split == "rows":
            assert said == "no error"
        else:
            assert said.startswith("CapabilityError: this is process 1 of 2; with split='latents' only the first one")
            assert "if world.first: fitted.save(folder)" in said and "split='rows'" in said
    assert not list(pair[0].glob(".*")) and not (pair[0] / f"1-latents-{name}").exists()


@BOTH
def test_resumed_by_two_is_bit_for_bit_what_two_would_have_done(pair, split):
    folder = pair[0]
    found = load_file(folder / f"stopped-{split}-batch_top_k" / "run-0.safetensors")
    expected = load_file(folder / f"{split}-batch_top_k" / "run-0.safetensors")
    assert all(torch.equal(found[name], expected[name]) for name in expected)


@BOTH
def test_one_process_goes_on_where_two_stopped(pair, alone, split, tmp_path):
    folder = shutil.copytree(pair[0] / f"stopped-{split}-top_k", tmp_path / "stopped")
    state = json.loads((folder / "state.json").read_text())
    assert 0 < state["position"]["tokens"] < 14_000, "it was really stopped in the middle"
    train("top_k", folder)
    agree(load_file(folder / "run-0.safetensors"), alone["top_k"][1])


@BOTH
def test_where_the_first_one_cannot_write_all_stop_at_once_and_can_start_again(pair, split):
    folder, found = pair
    assert found[f"unwritten {split}"] == "StoreError: process 0: no space left"
    others = json.loads((folder / "found-1.json").read_text())[f"unwritten {split}"]
    assert others.startswith("WorkerError: process 1 of 2 stops, since another one could not write")
    again, expected = (
        load_file(folder / name / "run-0.safetensors") for name in (f"unwritten-{split}", f"{split}-top_k")
    )
    assert all(torch.equal(again[name], expected[name]) for name in expected)


def test_a_process_that_dies_is_reported_and_leaves_a_whole_checkpoint(pair):
    folder, found = pair
    assert "WorkerError: process 0 of 2 lost the others" in found["died"]
    assert "look for the first error among their messages" in found["died"]
    read_manifest(folder / "died", "training")
    assert not [path for path in folder.iterdir() if path.name.startswith(".")], "nothing half-written stays"


def test_misunderstandings_between_processes_are_told(pair):
    found = pair[1]
    assert "2 processes hold 3 latents each" in found["too narrow"] and "CapabilityError" in found["too narrow"]
    assert "differ in settings or data" in found["other data"]
    assert "Did you mean 'rows'?" in found["no such split"]


def test_a_process_that_was_started_alone_is_told_how_to_start_several(monkeypatch):
    monkeypatch.delenv("RANK", raising=False)
    with pytest.raises(SettingError, match="torchrun --nproc-per-node"):
        fit(PRESETS["top_k"], states(), n_tokens=100, split="rows")
