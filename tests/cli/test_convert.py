"""overtone convert."""

import json

import pytest

from format_dictionaries import trained
from overtone.cli import main
from overtone.core.catalogue import entries
from overtone.dictionaries.storage import save_dictionary


@pytest.fixture
def source(tmp_path):
    return save_dictionary(trained("batch_top_k"), tmp_path / "dictionary", facts={"site": "residual.3"})


def told(capsys, *words):
    assert main([*map(str, words), "--json"]) == 0
    return json.loads(capsys.readouterr().out)


@pytest.mark.parametrize("format", ["saelens", "gemma_scope", "dictionary_learning", "circuit_tracer"])
def test_a_dictionary_goes_there_and_back(format, source, tmp_path, capsys):
    there = told(capsys, "convert", source, tmp_path / "out", "--to", format)
    assert (there["from"], there["to"], there["exact"]) == ("overtone", format, True)
    back = told(capsys, "convert", tmp_path / "out", tmp_path / "back", "--to", "overtone", "--from", format)
    assert (back["from"], back["width"], back["n_latents"]) == (format, 8, 8)


def test_a_transcoder_says_what_it_reads_and_what_it_predicts(tmp_path, capsys):
    facts = {"site": "mlp_in.2", "target": "mlp_out.2"}
    save_dictionary(trained("transcoder"), tmp_path / "made", facts=facts)
    told(capsys, "convert", tmp_path / "made", tmp_path / "out", "--to", "saelens")
    cfg = json.loads((tmp_path / "out" / "cfg.json").read_text())
    assert (cfg["architecture"], cfg["d_out"]) == ("transcoder", 8)
    assert cfg["metadata"]["hook_name_out"] == "blocks.2.hook_mlp_out"


def test_people_see_what_was_written_and_what_changed_form(source, tmp_path, capsys):
    assert main(["convert", str(source), str(tmp_path / "out"), "--to", "gemma_scope"]) == 0
    shown = capsys.readouterr().out
    assert "overtone -> gemma_scope: 8 latents of width 8" in shown and "note: this format subtracts nothing" in shown


def test_site_and_model_can_be_said(source, tmp_path, capsys):
    words = ["--to", "saelens", "--site", "mlp_out.2", "--model", "gpt2"]
    told(capsys, "convert", source, tmp_path / "out", *words)
    metadata = json.loads((tmp_path / "out" / "cfg.json").read_text())["metadata"]
    assert metadata["hook_name"] == "blocks.2.hook_mlp_out" and metadata["model_name"] == "gpt2"


def test_two_readings_are_one_line_that_names_the_option(source, tmp_path, capsys):
    told(capsys, "convert", source, tmp_path / "out", "--to", "saelens")
    cfg = json.loads((tmp_path / "out" / "cfg.json").read_text())
    del cfg["apply_b_dec_to_input"]
    (tmp_path / "out" / "cfg.json").write_text(json.dumps(cfg))
    words = ["convert", str(tmp_path / "out"), str(tmp_path / "back"), "--to", "overtone"]
    assert main(words) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and "apply_b_dec_to_input" in said
    assert "--apply-b-dec-to-input" in said
    for answer in ("true", "False"):
        assert main([*words, "--apply-b-dec-to-input", answer]) == 0
    capsys.readouterr()
    assert main([*words, "--apply-b-dec-to-input", "many"]) == 2
    assert "say true or false" in capsys.readouterr().err


def test_mistakes_are_told(source, tmp_path, capsys):
    assert main(["convert", str(source), str(tmp_path / "out"), "--to", "saelenz"]) == 2
    assert "Did you mean 'saelens'?" in capsys.readouterr().err
    assert main(["convert", str(tmp_path / "nowhere"), str(tmp_path / "out"), "--to", "saelens"]) == 2
    assert "there is no" in capsys.readouterr().err


def test_formats_are_listed_with_what_they_do(capsys):
    rows = told(capsys, "list", "formats")
    assert {row["name"] for row in rows} == set(entries("formats"))
    assert {row["name"] for row in rows if not row["writes"]} == {"openai"}


def test_a_folder_is_not_written_onto_itself(source, capsys):
    before = {path.name: path.read_bytes() for path in source.iterdir()}
    for to in ("overtone", "saelens"):
        assert main(["convert", str(source), f"{source}/.", "--to", to]) == 2
        assert "is what is read" in capsys.readouterr().err
    assert {path.name: path.read_bytes() for path in source.iterdir()} == before


def test_split_signs_says_how_many_latents_were_written(tmp_path, capsys):
    save_dictionary(trained("abs_top_k"), tmp_path / "made")
    for to in ("sparsify", "overtone"):
        told_of = told(capsys, "convert", tmp_path / "made", tmp_path / to, "--to", to, "--split-signs")
        assert told_of["n_latents"] == 16 and "i and 8 + i: 16 latents" in told_of["notes"][0]


@pytest.mark.parametrize("kind", ["top_k", "crosscoder", "k_means"])
@pytest.mark.parametrize("to", ["overtone", "saelens"])
def test_where_there_are_no_signs_to_split_that_is_said_of_every_kind(kind, to, tmp_path, capsys):
    save_dictionary(trained(kind), tmp_path / "made")
    assert main(["convert", str(tmp_path / "made"), str(tmp_path / "out"), "--to", to, "--split-signs"]) == 2
    line = capsys.readouterr().err
    assert line.startswith("overtone: there are no signs to split") and "Leave --split-signs out" in line
    assert not (tmp_path / "out").exists()


def test_a_folder_without_layers_and_a_place_that_is_missing_are_told(source, tmp_path, capsys):
    words = ["convert", str(source), str(tmp_path / "out"), "--to"]
    assert main([*words, "saelens", "--from", "circuit_tracer"]) == 2
    assert "holds no layer_N.safetensors" in capsys.readouterr().err
    save_dictionary(trained("batch_top_k"), tmp_path / "bare")
    assert main(["convert", str(tmp_path / "bare"), str(tmp_path / "out"), "--to", "circuit_tracer"]) == 2
    assert "--site mlp_in.3" in capsys.readouterr().err


def test_gemma_scope_says_of_a_transcoder_what_its_file_does_not(tmp_path, capsys):
    save_dictionary(trained("transcoder"), tmp_path / "made", facts={"site": "mlp_in.2", "target": "mlp_out.2"})
    written = told(capsys, "convert", tmp_path / "made", tmp_path / "out", "--to", "gemma_scope")
    assert written["exact"] and any("predicts another site" in note for note in written["notes"])
