"""overtone compare, and overtone train on plain arrays of rows."""

import json

import pytest
import torch
from safetensors.torch import save_file

from overtone.cli import main
from overtone.dictionaries.storage import load_dictionary


@pytest.fixture(scope="module")
def rows(tmp_path_factory):
    """A .safetensors file of (600, 8) rows."""
    draw = torch.Generator().manual_seed(0)
    path = tmp_path_factory.mktemp("rows") / "rows.safetensors"
    save_file({"x": torch.randn(600, 8, generator=draw) @ torch.randn(8, 8, generator=draw)}, path)
    return str(path)


def said(capsys, *words):
    code = main([*words, "--json"])
    out = capsys.readouterr()
    assert code == 0, out.err
    return json.loads(out.out)


def test_compare_prints_and_keeps_the_standings_and_a_page(rows, tmp_path, capsys):
    out = tmp_path / "made"
    words = ["--activations", rows, "--n-latents", "16", "--k", "2", "--n-tokens", "1200", "--seeds", "2"]
    data = said(capsys, "compare", "top_k", "relu_l1", "transcoder", *words, "--batch-rows", "64", "--out", str(out))
    assert {one["name"] for one in data["standings"]} == {"top_k", "relu_l1"}
    assert set(data["left_out"]) == {"transcoder"} and data["rows"]["width"] == 8
    kept = json.loads((out / "lineup.json").read_text())
    assert kept["standings"] == data["standings"]
    assert "top_k" in (out / "lineup.html").read_text()


def test_compare_shows_a_table(rows, tmp_path, capsys):
    words = ["--activations", rows, "--n-latents", "16", "--k", "2", "3", "--n-tokens", "300", "--seeds", "1"]
    assert main(["compare", "top_k", *words, "--batch-rows", "64", "--out", str(tmp_path / "made"), "--quiet"]) == 0
    out = capsys.readouterr().out
    assert "top_k k=2" in out and "top_k k=3" in out and "lineup.html" in out


def test_an_interrupted_comparison_says_how_to_go_on_and_goes_on(rows, tmp_path, capsys, monkeypatch):
    import overtone.evaluate.lineup.lineup as module

    done, real = [], module.trial

    def stops_once(name, *rest, **options):
        done.append(name)
        if done == ["pca", "top_k"]:
            raise KeyboardInterrupt
        return real(name, *rest, **options)

    monkeypatch.setattr(module, "trial", stops_once)
    words = ["compare", "pca", "top_k", "--activations", rows, "--n-latents", "8", "--k", "2", "--n-tokens", "300"]
    words += ["--seeds", "1", "--out", str(tmp_path / "made")]
    assert main([*words, "--quiet"]) == 130
    assert "Every finished dictionary was kept: run the same command again" in capsys.readouterr().err
    assert len(said(capsys, *words)["standings"]) == 2 and done == ["pca", "top_k", "top_k"]


@pytest.mark.parametrize("kind", ["batch_top_k", "gated", "pca"])
def test_train_takes_an_array_and_says_how_well_it_did(kind, rows, tmp_path, capsys):
    out = tmp_path / kind
    words = ["--activations", rows, "--latents=8", "--tokens", "1200", "--batch-rows", "64", "--out", str(out)]
    data = said(capsys, "train", kind, *words, *(["--k", "2"] if kind == "batch_top_k" else []))
    assert {"unexplained", "l0", "share_dead"} <= data["last"].keys()
    assert load_dictionary(out).n_latents == 8


def test_what_cannot_be_read_is_one_line(tmp_path, capsys):
    assert main(["train", "top_k", "--activations", str(tmp_path / "no.npy"), "--latents", "8", "--k", "2"]) == 2
    assert "no.npy does not exist" in capsys.readouterr().err


def test_compare_takes_one_of_several_arrays_and_gradients_beside_it(tmp_path, capsys):
    draw = torch.Generator().manual_seed(0)
    arrays = {name: torch.randn(300, 8, generator=draw) for name in ("states", "loss gradients")}
    save_file(arrays, tmp_path / "two.safetensors")
    words = ["compare", "g_sae", "top_k", "--activations", str(tmp_path / "two.safetensors"), "--n-latents", "16"]
    words += ["--k", "2", "--n-tokens", "300", "--seeds", "1", "--batch-rows", "100", "--quiet"]
    words += ["--out", str(tmp_path / "made")]
    assert main(words) == 2
    assert "holds loss gradients, states: say which" in capsys.readouterr().err
    both = said(capsys, *words, "--site", "states", "--gradients", "loss gradients")
    assert {one["name"] for one in both["standings"]} == {"g_sae", "top_k"} and both["left_out"] == {}
    assert set(said(capsys, *words, "--site", "states")["left_out"]) == {"g_sae"}


def test_compare_of_nothing_is_one_line(rows, capsys, tmp_path):
    words = ["compare", "top_k", "--activations", rows, "--out", str(tmp_path / "made")]
    assert main([*words, "--seeds", "0"]) == 2
    assert "0 seeds and 1 budgets k: give at least one" in capsys.readouterr().err
