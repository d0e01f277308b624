"""overtone collect and overtone train, on a miniature model saved to disk."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from transformers import LlamaForCausalLM, PreTrainedTokenizerFast

import overtone
from miniature import save_model, save_texts
from overtone.activations.store import ActivationStore
from overtone.cli import main
from overtone.core.sites import Site
from overtone.dictionaries.storage import load_dictionary


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """A folder with a miniature model."""
    return save_model(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def texts(tmp_path_factory):
    """A file of texts for it."""
    return save_texts(tmp_path_factory.mktemp("texts") / "texts.jsonl")


@pytest.fixture(scope="module")
def store(model, texts, tmp_path_factory):
    """The folder of a store, made by the command."""
    out = tmp_path_factory.mktemp("states")
    words = [
        "--model",
        model,
        "--texts",
        texts,
        "--sites",
        "residual.0",
        "residual.1",
        "--rows",
        "next",
        "--out",
        str(out),
    ]
    assert main(["collect", *words, "--quiet"]) == 0
    return str(next(out.iterdir()))


def test_states_are_stored_one_row_per_step(store):
    opened = ActivationStore.open(store)
    assert opened.n_rows == 36
    assert {str(site): width for site, width in opened.widths.items()} == {"residual.0": 16, "residual.1": 16}


def test_the_same_states_are_not_computed_twice(model, texts, store, capsys):
    folder = store.rpartition("/")[0]
    words = [
        "--model",
        model,
        "--texts",
        texts,
        "--sites",
        "residual.0",
        "residual.1",
        "--rows",
        "next",
        "--out",
        folder,
    ]
    assert main(["collect", *words, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["store"] == store


def test_a_trained_dictionary_fits_the_site_and_leaves_nothing_else(store, tmp_path, capsys):
    out = tmp_path / "dictionary"
    words = ["--store", store, "--site", "residual.1", "--n-latents", "12", "--k", "2", "--n-tokens", "500"]
    assert main(["train", "top_k", *words, "--batch-rows", "16", "--out", str(out), "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["kind"], told["site"]) == ("top_k", "residual.1")
    rows = ActivationStore.open(store).all().at(Site("residual", 1))
    codes = load_dictionary(out).encode(rows)
    assert codes.n_latents == 12 and int((codes.dense() != 0).sum(1).max()) <= 2
    assert [path.name for path in tmp_path.iterdir()] == ["dictionary"]


@pytest.mark.timeout(600)  # three starts of Python with torch
def test_torchrun_starts_two_that_train_one_dictionary_and_one_speaks(store, tmp_path):
    out, alone = tmp_path / "dictionary", tmp_path / "alone"
    words = ["--store", store, "--site", "residual.1", "--n-latents", "12", "--k", "2", "--n-tokens", "500"]
    words = ["train", "top_k", *words, "--batch-rows", "16", "--json", "--out"]
    starter = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "--no-python"]
    program = [sys.executable, "-c", "import sys; from overtone.cli import main; sys.exit(main())"]
    paths = os.pathsep.join([str(Path(overtone.__file__).parents[1]), *sys.path])
    done = subprocess.run(
        [*starter, *program, *words, str(out), "--split", "latents"], capture_output=True, text=True, timeout=500,
        env={**os.environ, "PYTHONPATH": paths},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["dictionary"] == str(out)
    assert main([*words, str(alone)]) == 0
    ours, theirs = load_dictionary(out).state_dict(), load_dictionary(alone).state_dict()
    for name in theirs:
        torch.testing.assert_close(ours[name], theirs[name], rtol=1e-4, atol=1e-5)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["alone", "dictionary"]


def test_a_site_that_was_not_collected_is_a_mistake(store, tmp_path, capsys):
    words = ["--store", store, "--site", "residual.7", "--n-latents", "64", "--out", str(tmp_path / "d")]
    assert main(["train", "top_k", *words]) == 2
    assert "residual.0, residual.1" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_a_site_that_the_model_lacks_is_a_mistake(model, texts, tmp_path, capsys):
    words = ["--model", model, "--texts", texts, "--sites", "residual.9", "--out", str(tmp_path)]
    assert main(["collect", *words]) == 2
    assert "residual.9" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_gradients_are_stored_on_request_and_a_preset_that_needs_them_trains_on_them(model, texts, tmp_path, capsys):
    place = ["--model", model, "--texts", texts, "--sites", "residual.0", "--out", str(tmp_path / "states")]
    assert main(["collect", *place, "--gradient", "mean", "--json"]) == 0
    kept = json.loads(capsys.readouterr().out)["store"]
    assert ActivationStore.open(kept).gradient == "mean"
    words = [
        "--store",
        str(tmp_path / "states"),
        "--n-latents",
        "12",
        "--k",
        "2",
        "--n-tokens",
        "500",
        "--batch-rows",
        "16",
    ]
    assert main(["train", "g_sae", *words, "--out", str(tmp_path / "made"), "--quiet"]) == 0
    assert load_dictionary(tmp_path / "made").origin["preset"] == "g_sae"


def test_a_crosscoder_is_trained_on_the_stores_of_two_models(model, texts, store, tmp_path, capsys):
    other = tmp_path / "other"
    torch.manual_seed(1)
    changed = LlamaForCausalLM.from_pretrained(model)
    for weight in changed.parameters():
        weight.data += 0.1 * torch.randn_like(weight)
    changed.save_pretrained(other)
    PreTrainedTokenizerFast.from_pretrained(model).save_pretrained(other)
    words = ["--model", str(other), "--texts", texts, "--sites", "residual.1", "--rows", "next", "--out"]
    assert main(["collect", *words, str(tmp_path / "states"), "--quiet"]) == 0
    train = ["train", "crosscoder", "--latents", "24", "--k", "3", "--tokens", "300", "--out", str(tmp_path / "made")]
    train += ["--activations", f"base={store}", f"chat={tmp_path / 'states'}", "--quiet"]
    assert main([*train, "--site", "base:residual.1", "chat:residual.1"]) == 0
    assert load_dictionary(tmp_path / "made").views == (16, 16)
    facts = json.loads((tmp_path / "made" / "manifest.json").read_text())
    assert facts["facts"]["site"] == "base:residual.1+chat:residual.1" and set(facts["sources"]) == {"base", "chat"}
    capsys.readouterr()
    assert main(train) == 2
    assert "say which to train on: --site base:residual.0 base:residual.1 chat:residual.1" in capsys.readouterr().err
    assert main([*train[:-4], "--activations", store, str(tmp_path / "states")]) == 2
    assert "need a name each, such as base=FOLDER" in capsys.readouterr().err


def test_two_models_over_other_texts_are_not_put_beside_each_other(model, texts, store, tmp_path, capsys):
    fewer = ["--texts", texts, "--limit", "11", "--sites", "residual.1", "--rows", "next", "--out", str(tmp_path)]
    assert main(["collect", "--model", model, *fewer, "--quiet"]) == 0
    capsys.readouterr()
    words = ["--activations", f"a={store}", f"b={tmp_path}", "--site", "a:residual.1", "b:residual.1"]
    assert main(["train", "crosscoder", "--latents", "8", "--k", "2", *words]) == 2
    assert "a and b were read over different tokens" in capsys.readouterr().err
