"""overtone train on arrays from files: no model, no store, a folder that explains itself."""

import itertools
import json
import os
import signal
import time
from importlib import import_module

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from overtone.cli import main
from overtone.cli._knobs import descriptions
from overtone.core.artifacts import MANIFEST, Manifest, new_folder, read_manifest
from overtone.core.catalogue import entries
from overtone.data.synthetic import plant
from overtone.dictionaries.storage import load_dictionary
from overtone.evaluate.reconstruction import fvu
from overtone.training.run import Run

X = plant(24, 16, max_cosine=0.7, seed=0).sample(1200, active=3, seed=0, noise=0.05).x
SMALL = ["--latents", "24", "--tokens", "20000", "--batch-rows", "100", "--quiet", "--json"]


@pytest.fixture
def file(tmp_path):
    save_file({"acts": X}, tmp_path / "states.safetensors")
    return tmp_path / "states.safetensors"


def told(capsys, *words):
    """What `overtone train WORDS` prints, as data."""
    assert main(["train", *map(str, words)]) == 0
    return json.loads(capsys.readouterr().out)


def complaint(capsys, *words):
    """The one line that a mistake prints."""
    assert main(["train", *map(str, words)]) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    return said


def test_any_matrix_is_trained_on_and_the_figures_are_those_of_the_dictionary(file, tmp_path, capsys):
    found = told(capsys, "top_k", "--activations", file, "--k", "3", "--out", tmp_path / "made", *SMALL)
    dictionary = load_dictionary(found["dictionary"])
    codes = dictionary.encode(X)
    assert found["error"] == pytest.approx(fvu(X, dictionary.decode(codes)), rel=1e-6) and found["error"] < 0.5
    assert found["l0"] == pytest.approx(float(codes.counts().float().mean())) and found["l0"] <= 3
    assert found["dead_share"] == pytest.approx(float((codes.frequencies() == 0).float().mean()))
    assert found["tokens_per_s"] > 0 and found["site"] == "acts" and found["last"]["tokens"] == 20_000


def test_the_folder_explains_itself(file, tmp_path, capsys):
    found = told(capsys, "top_k", "--activations", file, "--k", "3", "--out", tmp_path / "made", *SMALL)
    page = (tmp_path / "made" / "README.md").read_text()
    assert "2406.04093" in page and "24 latents for states of width 16" in page and "trained on: acts" in page
    assert f"overtone train top_k --activations {file} --n-tokens 20000 --batch-rows 100" in page
    assert f"| error | {found['error']:.4g} |" in page and "load_dictionary" in page
    assert read_manifest(tmp_path / "made", "dictionary").facts["arrays"] == "acts"


def test_formats_and_shards_of_the_same_rows_give_the_same_dictionary(file, tmp_path, capsys):
    np.save(tmp_path / "states.npy", X.numpy())
    (tmp_path / "shards").mkdir()
    save_file({"acts": X[:500].contiguous()}, tmp_path / "shards" / "0.safetensors")
    save_file({"acts": X[500:].contiguous()}, tmp_path / "shards" / "1.safetensors")
    codes = []
    for i, path in enumerate((file, tmp_path / "states.npy", tmp_path / "shards")):
        found = told(capsys, "top_k", "--activations", path, "--k", "3", "--out", tmp_path / f"made{i}", *SMALL)
        codes.append(load_dictionary(found["dictionary"]).encode(X).dense())
    assert torch.equal(codes[0], codes[1]) and torch.equal(codes[0], codes[2])


def test_several_arrays_are_told_apart_by_name(tmp_path, capsys):
    path = tmp_path / "states.safetensors"
    save_file({"x": X, "slope": X.sin(), "other": X[:, :4].contiguous()}, path)
    words = ["g_sae", "--activations", path, "--k", "3", "--out", tmp_path / "made", *SMALL]
    assert "say which to train on" in complaint(capsys, *words, "--gradients", "slope")
    assert told(capsys, *words, "--site", "x", "--gradients", "slope")["site"] == "x"
    line = complaint(capsys, *words, "--site", "x", "--gradients", "slop")
    assert "it holds other, slope, x" in line and "slope" in line
    line = complaint(capsys, *words, "--site", "x", "--gradients", "other")
    assert f"other: expected {tuple(X.shape)}, as x is" in line and f"got ({len(X)}, 4)" in line


def test_a_transcoder_predicts_the_array_that_is_named(tmp_path, capsys):
    path = tmp_path / "states.safetensors"
    save_file({"before": X, "after": X.roll(1, 1)}, path)
    words = ["transcoder", "--activations", path, "--out", tmp_path / "made", *SMALL]
    found = told(capsys, *words, "--site", "before", "--target", "after")
    dictionary = load_dictionary(found["dictionary"])
    assert found["error"] == pytest.approx(fvu(X.roll(1, 1), dictionary.decode(dictionary.encode(X), X)), rel=1e-6)


@pytest.mark.parametrize("name", ["pca", "gba", "poly_sae", "v_sae"])
def test_every_kind_prints_the_same_figures(name, file, tmp_path, capsys):
    words = {"pca": ["--latents", "8", *SMALL[2:]], "gba": SMALL}.get(name, ["--k", "3", *SMALL])
    found = told(capsys, name, "--activations", file, "--out", tmp_path / "made", *words)
    assert {"error", "l0", "dead_share", "tokens_per_s", "dictionary", "kind", "last"} <= set(found)
    assert 0 <= found["error"] < 1.1 and found["tokens_per_s"] > 0


def test_what_is_no_array_is_refused_in_one_line(tmp_path, capsys):
    (tmp_path / "notes.npy").write_text("no numbers")
    for path, said in (("notes.npy", "not an array"), ("absent.safetensors", "does not exist"), ("states", "overtone")):
        assert said in complaint(capsys, "top_k", "--activations", tmp_path / path, "--latents", "8", "--k", "2")


def test_a_knob_that_a_kind_lacks_is_not_suggested(file, capsys):
    line = complaint(capsys, "gba", "--activations", file, "--latents", "8", "--views", "2")
    assert "no option --views." in line and "mean '--views'" not in line and "overtone train gba --help" in line


@pytest.mark.parametrize(("kind", "left_out"), [("top_k", []), ("relu_l1", []), ("k_means", ["k"])])
def test_one_command_line_serves_all_kinds(kind, left_out, file, tmp_path, capsys):
    """A number of active latents is a budget, what a price is steered to, or left out, which is said."""
    words = ["--json", "--activations", file, kind, "--latents", "8", "--k", "2", "--tokens", "600"]
    assert main(["train", *map(str, words), "--out", str(tmp_path / kind)]) == 0
    said = capsys.readouterr()
    assert json.loads(said.out)["left_out"] == left_out and ("--k is left out" in said.err) == bool(left_out)
    settings = load_dictionary(tmp_path / kind).origin["settings"]
    assert {"top_k": settings.get("k"), "relu_l1": settings.get("target_l0")}.get(kind, 2) == 2


def test_a_fraction_of_active_latents_is_taken_or_refused_in_the_same_words_as_by_the_kind(file, tmp_path, capsys):
    words = ["--activations", file, "--latents", "16", "--out", tmp_path / "made"]
    found = told(capsys, "batch_top_k", *words, "--k", "1.4", "--tokens", "20000", "--batch-rows", "100", "--json")
    assert found["l0"] == pytest.approx(1.4, rel=0.1)
    assert load_dictionary(tmp_path / "made").origin["settings"]["k"] == 1.4
    assert "--k 1.4" in (tmp_path / "made" / "README.md").read_text()
    assert "k=1.4: use a whole number" in complaint(capsys, "top_k", *words, "--k", "1.4")
    assert "k=1.4: use a whole number of at least 1, or None" in complaint(capsys, "pca", *words, "--k", "1.4")
    assert "k_aux=1.5: use a whole number" in complaint(capsys, "top_k", *words, "--k-aux", "1.5")


@pytest.mark.parametrize(
    ("kind", "option", "value", "told"),
    [
        ("top_k", "--k", "many", "'many' is no number."),
        ("top_k", "--k-aux", "few", "'few' is neither a number nor None."),
        ("top_k", "--aux-weight", "much", "'much' is no number."),
        ("gated", "--target-l0", "few", "'few' is neither a number nor None."),
        ("top_k", "--seed", "1.5", "'1.5' is no whole number."),
    ],
)
def test_a_value_that_is_no_number_is_told_in_plain_words(kind, option, value, told, file, capsys):
    said = complaint(capsys, kind, "--activations", file, "--latents", "8", option, value)
    assert f"{option}: {told}" in said


def test_the_speed_of_a_kind_that_is_fitted_at_once_is_of_the_rows_that_there_are(file, tmp_path, capsys):
    words = ["pca", "--activations", file, "--latents", "8", "--json", "--tokens", 10**7, "--out", tmp_path / "made"]
    began = time.perf_counter()
    assert main(["train", *map(str, words)]) == 0
    rows = json.loads(capsys.readouterr().out)["tokens_per_s"] * (time.perf_counter() - began)
    assert rows < 10**6, "it takes a part of that time, and there are 1200"


@pytest.mark.parametrize("out", [".", "..", "", "states.safetensors/below", "foreign", "store"])
def test_a_place_that_does_not_do_is_refused_before_anything_is_trained(out, file, tmp_path, capsys, monkeypatch):
    (tmp_path / "foreign").mkdir()
    (tmp_path / "foreign" / MANIFEST).write_text('{"name": "an extension of a browser"}')
    with new_folder(tmp_path / "store", Manifest("store")) as folder:
        (folder / "precious").write_text("rows")
    monkeypatch.setattr(import_module("overtone.training.fit"), "fit", lambda *a, **b: pytest.fail("was trained"))
    monkeypatch.chdir(tmp_path)
    before = sorted(tmp_path.rglob("*"))
    line = complaint(capsys, "top_k", "--activations", file, "--latents", "8", "--k", "2", "--out", out)
    assert "left alone" in line or "is not the name of a folder" in line
    assert sorted(tmp_path.rglob("*")) == before


def test_an_unfinished_training_is_kept_named_and_left_behind_on_demand(file, tmp_path, capsys, monkeypatch):
    """Neither another kind nor other settings take its place; --restart does."""
    given = ["--activations", str(file), "--latents", "8", "--k", "2", "--tokens", "900", "--batch-rows", "50"]
    given += ["--quiet", "--out", str(tmp_path / "made")]
    advance, steps = Run.advance, itertools.count()

    def interrupted(*rows):
        if next(steps) == 4:
            os.kill(os.getpid(), signal.SIGINT)
        return advance(*rows)

    monkeypatch.setattr(Run, "advance", interrupted)
    assert main(["train", "top_k", *given]) == 130
    assert "The training was saved" in capsys.readouterr().err
    assert main(["train", "pca", *given]) == 0, capsys.readouterr().err
    assert "n_latents 8 there, 9 asked" in complaint(capsys, "top_k", *given, "--latents", "9")
    assert "--restart" in complaint(capsys, "batch_top_k", *given)
    assert main(["train", "top_k", *given, "--latents", "9", "--restart"]) == 0
    assert not (tmp_path / ".made.training").exists()


@pytest.mark.parametrize("where", ["overtone.training.run.Run.advance", "overtone.activations.array.read_arrays"])
def test_an_interrupt_before_anything_is_saved_says_so(where, file, tmp_path, capsys, monkeypatch):
    def stops(*rows):
        raise KeyboardInterrupt

    monkeypatch.setattr(where, stops)
    words = ["top_k", "--activations", file, "--latents", "8", "--k", "2", "--quiet", "--out", tmp_path / "made"]
    assert main(["train", *map(str, words)]) == 130
    assert capsys.readouterr().err == "overtone: interrupted. Nothing was saved yet.\n"


def test_help_states_paper_and_knobs(capsys):
    assert main(["train", "gba", "--help"]) == 0
    said = " ".join(capsys.readouterr().out.replace("│", " ").split())
    assert "2506.14002" in said and "--n-latents" in said and "Largest and smallest target rate" in said


@pytest.mark.parametrize(("name", "also"), [("g_sae", "auxiliary loss."), ("crosscoder", "auxiliary loss, without")])
def test_help_sends_nobody_to_another_kind(name, also, capsys):
    assert main(["train", name, "--help"]) == 0
    said = " ".join(capsys.readouterr().out.replace("│", " ").split())
    assert "As in" not in said and f"Weight of the {also}" in said


@pytest.mark.parametrize("name", entries("dictionaries"))
def test_every_knob_of_every_kind_is_described(name):
    preset = entries("dictionaries")[name].thing
    missing = set(entries("dictionaries")[name].facts["knobs"]) - set(descriptions(preset))
    assert not missing, f"the docstring of {preset.__name__} says nothing of {', '.join(sorted(missing))}"


def test_messages_and_records_name_the_array_and_no_site_that_was_not_given(file, tmp_path, capsys):
    found = told(capsys, "top_k", "--activations", file, "--k", "3", "--out", tmp_path / "made", *SMALL)
    assert found["last"]["job"] == "top_k acts"
    record = json.loads((tmp_path / "made" / "record.json").read_text())
    assert {line["job"] for line in record} == {"top_k acts"}


@pytest.mark.parametrize(
    ("made", "said"),
    [
        (lambda x: x.index_fill(0, torch.tensor([7]), float("nan")), "acts: 1 of 1200 rows hold NaN"),
        (lambda x: x.long(), "acts: expected a floating matrix (rows, width), got (1200, 16) torch.int64"),
        (lambda x: x[..., None], "acts: expected a floating matrix (rows, width), got (1200, 16, 1)"),
    ],
)
def test_an_array_that_cannot_be_trained_on_is_called_by_its_name(made, said, tmp_path, capsys):
    save_file({"acts": made(X).contiguous()}, tmp_path / "bad.safetensors")
    words = ["top_k", "--activations", tmp_path / "bad.safetensors", "--latents", "24", "--k", "3"]
    message = complaint(capsys, *words)
    assert said in message and "residual" not in message


def test_what_a_kind_needs_beside_states_is_named_as_an_option(file, capsys):
    assert "--gradients NAME" in complaint(capsys, "g_sae", "--activations", file, "--latents", "24", "--k", "3")
    assert "--target" in complaint(capsys, "transcoder", "--activations", file, "--latents", "24")
    words = ["crosscoder", "--activations", file, "--latents", "24", "--k", "3"]
    assert "16 columns are not known to be several views beside each other. Name a site for each" in complaint(
        capsys, *words
    )
    assert "16 columns are not 5 views beside each other" in complaint(capsys, *words, "--views", "5")


@pytest.mark.parametrize("kind", ["top_k", "nmf", "itda"])
def test_states_a_hundred_times_as_large_give_the_same_atoms(kind, tmp_path, capsys):
    made = []
    for times in (1, 100):
        save_file({"acts": times * X}, tmp_path / f"{times}.safetensors")
        words = [kind, "--activations", tmp_path / f"{times}.safetensors", "--out", tmp_path / f"made {times}", *SMALL]
        found = told(capsys, *words, *(["--k", "3"] if kind != "nmf" else []))
        made.append((found["error"], load_dictionary(found["dictionary"]).atoms()))
    (error, atoms), (again, same) = made
    assert again == pytest.approx(error, rel=1e-3)
    torch.testing.assert_close(same, atoms, rtol=0, atol=1e-3)


@pytest.mark.parametrize("device", ["nonesuch", "meta"])  # torch has meta, but it keeps no numbers
def test_a_device_that_cannot_be_used_is_named(device, file, capsys):
    said = complaint(capsys, "top_k", "--activations", file, "--k", 4, "--device", device, *SMALL)
    assert f"device='{device}' cannot be used here" in said and said.endswith(". Use cpu.\n")


def test_the_only_array_cannot_be_the_target_alone(file, tmp_path, capsys):
    said = complaint(capsys, "transcoder", "--activations", file, "--target", "acts", "--latents", "8")
    assert "say which to train on, e.g. --site acts" in said


def test_gradients_and_sites_that_a_kind_does_not_read_are_refused(tmp_path, capsys):
    path, x = tmp_path / "several.safetensors", X[:500]
    save_file({"a": x, "b": x + 1, "g": x.sin()}, path)
    words = ["top_k", "--activations", path, "--latents", "24", "--k", "3", "--site", "a"]
    assert "top_k does not select by gradients" in complaint(capsys, *words, "--gradients", "g")
    assert "reads the states of one site, and 2 are named" in complaint(capsys, *words, "b")
