"""The laws of an accelerator, over the catalogue: it computes what the CPU computes, and a step rarely waits for it."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from overtone.core.catalogue import entries

RUNNER = Path(__file__).parents[1] / "accelerator.py"
NAMES = list(entries("dictionaries"))
DENSE_OR_SPARSE = "which way the step goes is decided on the batch itself"
NOMINEES = "how many there are of nominees"
# How often a step waits for the accelerator, and for what; every other kind never does.
WAITS = {
    **dict.fromkeys(("gated", "gba", "jump_relu", "p_annealing", "relu_l1", "transcoder"), (1, DENSE_OR_SPARSE)),
    **dict.fromkeys(("batch_top_k", "crosscoder", "mutual_choice"), (2, f"{NOMINEES}, and of those that are chosen")),
    "feature_choice": (3, f"{NOMINEES}, of those that are chosen, and whether some latent has too few"),
    "matryoshka": (6, f"{NOMINEES}, of those that are chosen, and of those in each of four prefixes"),
    "top_afa": (1, "how many are chosen"),
    "v_sae": (1, "the number of the batch, by which noise is drawn"),
}


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    """What became of all kinds on the CPU and on an accelerator that is pretended, in a process of its own."""
    folder = tmp_path_factory.mktemp("accelerator")
    done = subprocess.run(
        [sys.executable, str(RUNNER), str(folder)], capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stderr
    return json.loads((folder / "found.json").read_text(encoding="utf-8"))


@pytest.mark.parametrize("name", NAMES)
def test_an_accelerator_trains_and_uses_dictionaries_as_the_cpu_does(name, found):
    assert "error" not in found[name], found[name]["error"]
    here, there = found[name]["losses"]
    assert there == pytest.approx(here, rel=1e-4)
    assert max(found[name]["apart"]) < 1e-4, "codes, reconstructions, atoms, exported files"


@pytest.mark.parametrize("name", NAMES)
def test_a_step_waits_for_an_accelerator_only_where_that_is_known(name, found):
    times, reason = WAITS.get(name, (0, "nothing"))
    assert len(found[name]["waits"]) == times, f"{found[name]['waits']}; known: {reason}"


def test_a_model_on_an_accelerator_is_steered_and_read_as_on_the_cpu(found):
    here, there = found["model"]
    assert there["tokens"] == here["tokens"] and here["tokens"]["none"] != here["tokens"]["push"]
    assert there["numbers"] == pytest.approx(here["numbers"], rel=1e-3)


def test_the_command_line_collects_trains_and_compares_on_an_accelerator(found):
    here, there = found["told"]
    assert there == pytest.approx(here, rel=1e-3) and 0 < here[0] < 1


def test_the_pretended_accelerator_refuses_what_a_real_one_does(found):
    refused = found["refused"]
    assert "tensors of both devices" in refused["strangers"] and "generator" in refused["generator"]
    assert refused["numpy"] and refused["waits"] == 4
