"""overtone evaluate."""

import json

import pytest
import torch
from safetensors.torch import save_file

import overtone.cli._looked_at as looked_at
from format_dictionaries import states, trained
from miniature import WIDTH, save_model, save_texts
from overtone.cli import main
from overtone.dictionaries.classic.fixed import signed_projection
from overtone.dictionaries.storage import save_dictionary
from overtone.evaluate.quality import MAP, OWN


@pytest.fixture(scope="module")
def rows(tmp_path_factory):
    """A .safetensors file of (300, 8) rows, those of a trained dictionary's kind."""
    path = tmp_path_factory.mktemp("rows") / "rows.safetensors"
    save_file({"x": states(300, 8)}, path)
    return str(path)


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """["--model", folder, "--texts", file] of a miniature model."""
    folder = tmp_path_factory.mktemp("model")
    return ["--model", save_model(folder / "model"), "--texts", save_texts(folder / "texts.jsonl")]


def told(capsys, *words):
    code = main(["evaluate", *map(str, words), "--json", "--quiet"])
    out = capsys.readouterr()
    assert code == 0, out.err
    return json.loads(out.out)


def refused(capsys, *words):
    assert main(["evaluate", *map(str, words), "--quiet"]) == 2
    out = capsys.readouterr()
    assert out.out == "" and out.err.count("\n") == 1
    return out.err


def whole(width):
    """A dictionary that gives back everything."""
    return signed_projection(torch.eye(width), torch.eye(width), torch.zeros(width))


def coding(data, name):
    return next(one for one in data["codings"] if one["name"] == name)


def test_a_perfect_dictionary_of_the_bundled_reasoner_misses_nothing(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(looked_at, "TRACES", 5)
    save_dictionary(whole(160), tmp_path / "whole", facts={"site": "residual.3"})
    data = told(capsys, tmp_path / "whole", "--spliced", "3")
    arms = {one["name"]: one for one in data["spliced"]["arms"]}
    assert coding(data, OWN)["fvu"]["value"] < 1e-9 and data["rows"]["trained_on"] is None
    assert arms["spliced"]["recovered"]["value"] == pytest.approx(1, abs=1e-3) and arms["zero"]["kl"]["value"] > 0.1
    assert arms["zero"]["recovered"]["value"] == 0 and data["spliced"]["texts"] == 3
    assert [f["holds"] for f in data["findings"]] == [True] and "controls" in data["left_out"]


def test_a_foreign_folder_gives_the_same_numbers(rows, tmp_path, capsys):
    save_dictionary(trained("top_k"), tmp_path / "own", facts={"site": "mlp_in.0"})
    assert main(["convert", str(tmp_path / "own"), str(tmp_path / "there"), "--to", "saelens"]) == 0
    (tmp_path / "there" / "overtone.json").unlink()
    capsys.readouterr()
    words = ["--activations", rows, "--pursuit", "orthogonal"]
    own, there = (told(capsys, tmp_path / name, *words) for name in ("own", "there"))
    assert (own["dictionary"]["format"], there["dictionary"]["format"]) == ("overtone", "saelens")
    for one, other in zip(own["codings"], there["codings"], strict=True):
        assert one["name"] == other["name"] and one["fvu"]["value"] == pytest.approx(other["fvu"]["value"], rel=1e-4)
    assert own["lengths"] == pytest.approx(there["lengths"], rel=1e-3)


def test_it_says_whether_rows_were_trained_on(rows, tmp_path, capsys):
    words = ["--activations", rows, "--n-latents", "8", "--k", "2", "--n-tokens", "600"]
    assert main(["train", "top_k", *words, "--out", str(tmp_path / "made"), "--quiet"]) == 0
    capsys.readouterr()
    seen = told(capsys, tmp_path / "made", "--activations", rows)
    assert seen["rows"]["trained_on"] is True and seen["rows"]["n"] == 300 and "splicing" in seen["left_out"]
    some = told(capsys, tmp_path / "made", "--activations", rows, "--documents", "250:")
    assert some["rows"]["trained_on"] is None and some["rows"]["n"] == 50
    save_file({"x": states(300, 8, seed=2)}, tmp_path / "other.safetensors")
    assert (
        told(capsys, tmp_path / "made", "--activations", tmp_path / "other.safetensors")["rows"]["trained_on"] is None
    )


def test_of_a_comparison_the_documents_that_were_held_out_are_looked_at(rows, tmp_path, capsys):
    words = ["--activations", rows, "--n-latents", "8", "--k", "2", "--n-tokens", "300", "--seeds", "1"]
    assert main(["compare", "top_k", *words, "--out", str(tmp_path / "made"), "--quiet"]) == 0
    capsys.readouterr()
    (folder,) = (tmp_path / "made" / "trained").iterdir()
    data = told(capsys, folder, "--activations", rows)
    measures = json.loads((folder / "manifest.json").read_text())["facts"]["measures"]
    assert data["rows"]["trained_on"] is False and data["rows"]["n"] == 90
    assert coding(data, OWN)["fvu"]["value"] == pytest.approx(measures["fvu"])


def test_states_of_a_model_are_read_as_the_dictionary_was_trained(model, tmp_path, capsys):
    place = ["--sites", "residual.0", "--out", str(tmp_path / "states"), "--gradient", "mean", "--quiet"]
    assert main(["collect", *model, *place]) == 0
    words = ["--store", str(tmp_path / "states"), "--n-latents", "12", "--k", "2", "--n-tokens", "400"]
    assert main(["train", "g_sae", *words, "--out", str(tmp_path / "made"), "--quiet"]) == 0
    capsys.readouterr()
    live = told(capsys, tmp_path / "made", *model, "--seed", "1")
    stored = told(capsys, tmp_path / "made", "--store", tmp_path / "states", *model, "--seed", "1")
    assert live["rows"]["trained_on"] is stored["rows"]["trained_on"] is True  # the same texts, the same states
    for one, other in zip(live["codings"], stored["codings"], strict=True):
        assert one["fvu"]["value"] == pytest.approx(other["fvu"]["value"], rel=1e-3)
    names = [one["name"] for one in live["spliced"]["arms"]]
    assert names == ["clean", "zero", "mean", "spliced", "true gradients", "drawn gradients"]
    assert "spliced.leak" in [f["id"] for f in live["findings"]]
    steps = told(capsys, tmp_path / "made", *model, "--rows", "next")
    assert steps["rows"]["n"] < live["rows"]["n"] and "anchor next" in steps["left_out"]["splicing"]
    assert "belongs to another model" in refused(capsys, tmp_path / "made")


def test_a_transcoder_is_tried_on_what_it_predicts(tmp_path, capsys):
    save_dictionary(trained("transcoder"), tmp_path / "made")
    save_file({"in": states(100, 8), "out": states(100, 8).roll(1, 1)}, tmp_path / "two.safetensors")
    words = [tmp_path / "made", "--activations", tmp_path / "two.safetensors", "--site", "in"]
    data = told(capsys, *words, "--target", "out")
    assert coding(data, MAP)["fvu"]["value"] < 1e-6 and "lengths" in data["left_out"]
    assert "predicts the states of another site" in refused(capsys, *words)
    line = refused(capsys, *words, "--target", "out", "--pursuit", "matching")
    assert "this dictionary does not write" in line and "nothing to pursue. Leave pursuits out" in line


def test_people_see_tables_and_a_report_is_kept(rows, tmp_path, capsys):
    save_dictionary(trained("batch_top_k"), tmp_path / "made")
    words = ["evaluate", str(tmp_path / "made"), "--activations", rows, "--out", str(tmp_path / "new" / "report.json")]
    assert main([*words, "--quiet"]) == 0
    shown = capsys.readouterr().out
    for part in ("8 latents of width 8", "its encoder", "random atoms", "the mean row", "lengths: codes are"):
        assert part in shown
    assert "left out: splicing: the dictionary does not say which site" in shown
    report = json.loads((tmp_path / "new" / "report.json").read_text())
    assert report["findings"][0]["control_name"] == "random atoms, orthogonal pursuit"


def test_a_crosscoder_is_told_by_view(tmp_path, capsys):
    save_dictionary(trained("crosscoder"), tmp_path / "made")
    save_file(
        {"a": states(100, 8)[:, :4].contiguous(), "b": states(100, 8)[:, 4:].contiguous()}, tmp_path / "two.safetensors"
    )
    words = [str(tmp_path / "made"), "--activations", str(tmp_path / "two.safetensors"), "--quiet"]
    assert main(["evaluate", *words, "--site", "a", "b"]) == 0
    assert "error by view: a " in capsys.readouterr().out
    assert "say which to train on" in refused(capsys, *words)


def test_mistakes_are_one_line(rows, model, tmp_path, capsys):
    save_dictionary(trained("top_k"), tmp_path / "made", facts={"site": "residual.0"})
    save_file({"x": states(30, 6)}, tmp_path / "narrow.safetensors")
    made = tmp_path / "made"
    assert "made for width 8" in refused(capsys, made, "--activations", tmp_path / "narrow.safetensors")
    assert "reads states of width 8" in refused(capsys, made) and "reads states of width 8" in refused(
        capsys, made, *model
    )
    assert f"{WIDTH} at residual.0" in refused(capsys, made, *model)
    assert "write FIRST:STOP" in refused(capsys, made, "--activations", rows, "--documents", "7")
    assert "no rows of these documents" in refused(capsys, made, "--activations", rows, "--documents", "900:")
    assert "needs something to read" in refused(capsys, made, "--model", "gpt2")
    assert "leave --gradients out" in refused(capsys, made, "--activations", rows, "--gradients", "x")
    assert "there is no" in refused(capsys, tmp_path / "nowhere")
