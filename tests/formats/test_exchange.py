"""Round trips through every format, what goes beside it, and what is refused."""

import json
import shutil
from pathlib import Path

import numpy
import pytest
import torch
from safetensors.torch import load_file, save_file

from format_dictionaries import PRESETS, fitted, plain, states, trained
from overtone.core.catalogue import entries
from overtone.core.errors import CapabilityError, SettingError, StoreError
from overtone.dictionaries.presets.batch_top_k import BatchTopK
from overtone.dictionaries.presets.gba import GBA
from overtone.dictionaries.storage import load_dictionary
from overtone.formats.choices import Choices
from overtone.formats.exchange import convert, export_dictionary, import_dictionary, writable
from overtone.formats.translate import dictionary_of

FORMATS = [name for name in writable() if name != "overtone"]
FACTS = {"site": "mlp_in.4", "target": "mlp_out.4", "model": "tiny"}


def pairs():
    """Every preset with every format that is written."""
    return [pytest.param(preset, format, id=f"{preset}-{format}") for preset in PRESETS for format in FORMATS]


def exported(preset, format, folder, **options):
    """The export, or a skip that says why there is none."""
    try:
        return export_dictionary(trained(preset), folder, format, facts=FACTS, **options)
    except CapabilityError as error:
        pytest.skip(str(error))


def assert_same_bits(one, other):
    before, after = one.state_dict(), other.state_dict()
    assert one.spec() == other.spec() and one.origin == other.origin and before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) and before[name].dtype == after[name].dtype for name in before)


@pytest.mark.parametrize(("preset", "format"), pairs())
def test_reading_back_loses_no_bit_where_that_is_promised(preset, format, tmp_path):
    written = exported(preset, format, tmp_path / "out")
    dictionary = trained(preset)
    scaled = dictionary.capabilities.foldable
    folded, read = dictionary.folded() if scaled else dictionary, import_dictionary(written.folder)
    assert read.format == format and {k: v for k, v in read.facts.items() if k in FACTS} == FACTS
    if written.exact:
        assert_same_bits(read.dictionary, folded)
    assert written.exact or format != "saelens", "SAELens' folder is the one for exchange: nothing may be lost there"


@pytest.mark.parametrize(("preset", "format"), pairs())
def test_the_files_alone_hold_the_function(preset, format, tmp_path):
    """Without the file that overtone leaves beside them, as every other library reads them."""
    written = exported(preset, format, tmp_path / "out")
    for path in written.folder.glob("overtone.*"):
        path.unlink()
    dictionary, x = trained(preset), states(100, 8)
    read = import_dictionary(written.folder).dictionary
    codes = dictionary.encode(x)
    torch.testing.assert_close(read.encode(x).dense(), codes.dense(), rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(read.reconstruct(x), dictionary.decode(codes, x), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("preset", [name for name in PRESETS if trained(name).capabilities.signed_codes])
@pytest.mark.parametrize("format", writable())
def test_signed_latents_travel_as_two_one_sided_ones(preset, format, tmp_path):
    written = exported(preset, format, tmp_path / "out", split_signs=True)
    dictionary, x = trained(preset), states(100, 8)
    read = import_dictionary(written.folder).dictionary
    halves = read.encode(x).dense()
    assert (halves >= 0).all()
    both = halves[:, : dictionary.n_latents] - halves[:, dictionary.n_latents :]
    torch.testing.assert_close(both, dictionary.encode(x).dense(), rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(read.reconstruct(x), dictionary.reconstruct(x), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_other_precisions_are_kept_and_thresholds_stay_in_float32(dtype, tmp_path):
    dictionary = trained("batch_top_k").folded().to(dtype)
    export_dictionary(dictionary, tmp_path / "out", "saelens")
    tensors = load_file(tmp_path / "out" / "sae_weights.safetensors")
    assert tensors["W_enc"].dtype == dtype and tensors["threshold"].dtype == torch.float32
    read = import_dictionary(tmp_path / "out").dictionary
    assert torch.equal(read.encoder.weight, dictionary.encoder.weight)
    torch.testing.assert_close(read.encode(states(50, 8)).dense(), dictionary.encode(states(50, 8)).dense())


def test_a_threshold_is_written_as_jumprelu_with_the_conventions_said(tmp_path):
    export_dictionary(trained("batch_top_k"), tmp_path / "out", "saelens", facts=FACTS)
    cfg = json.loads((tmp_path / "out" / "cfg.json").read_text())
    assert cfg["architecture"] == "jumprelu" and cfg["apply_b_dec_to_input"] is True
    assert cfg["normalize_activations"] == "none" and cfg["dtype"] == "float32"
    assert cfg["metadata"]["hook_name"] == "blocks.4.hook_mlp_in" and cfg["metadata"]["model_name"] == "tiny"
    theta = load_file(tmp_path / "out" / "sae_weights.safetensors")["threshold"]
    assert theta.shape == (8,) and len(theta.unique()) == 1 and theta[0] > 0


def test_a_fraction_of_active_latents_is_a_threshold_like_any_other(tmp_path):
    dictionary = fitted(BatchTopK(8, k=1.4))
    for format in ("saelens", "dictionary_learning"):
        written = export_dictionary(dictionary, tmp_path / format, format)
        read = import_dictionary(written.folder)
        assert written.exact and read.facts["k"] == 1.4
        assert_same_bits(read.dictionary, dictionary.folded())
    assert any("has room for a whole k only, which it does not encode by: 1 was" in note for note in written.notes)
    assert int(load_file(tmp_path / "dictionary_learning" / "ae.safetensors")["k"]) == 1


def test_changed_weights_are_believed_not_the_file_beside_them(tmp_path):
    export_dictionary(trained("batch_top_k"), tmp_path / "out", "saelens")
    path = tmp_path / "out" / "sae_weights.safetensors"
    save_file({**load_file(path), "threshold": torch.full((8,), 0.25)}, path)
    read = import_dictionary(tmp_path / "out")
    assert torch.equal(read.dictionary.selection.theta, torch.full((8,), 0.25))
    assert "sae_weights.safetensors is not what was written with it" in " ".join(read.notes)


@pytest.mark.parametrize("harm", ["of another", "edited", "cut", "missing", "of other sizes, and never hashed"])
def test_vectors_beside_that_belong_elsewhere_are_not_used_and_that_is_said(harm, tmp_path):
    """The scale of GBA's encoder lies beside SAELens' folder: that of another dictionary would change its codes."""
    folder, other, x = tmp_path / "out", tmp_path / "other", states(100, 8)
    export_dictionary(trained("gba"), folder, "saelens")
    assert import_dictionary(folder).notes == ()
    different = fitted(GBA(8 if harm == "of another" else 9))
    different.encoder.scale.data.mul_(3)
    export_dictionary(different, other, "saelens")
    main, vectors = json.loads((folder / "overtone.json").read_text()), folder / "overtone.safetensors"
    before = import_dictionary(folder).dictionary.encode(x).dense()
    if harm.startswith("of"):
        shutil.copy(other / vectors.name, vectors)
        if "never" in harm:  # as older versions wrote it
            del main["files"][vectors.name]
        (folder / "overtone.json").write_text(json.dumps(main))
    elif harm == "edited":
        save_file({name: 2 * value for name, value in load_file(vectors).items()}, vectors)
    elif harm == "cut":
        vectors.write_bytes(vectors.read_bytes()[:-4])
    else:
        vectors.unlink()
    read = import_dictionary(folder)
    torch.testing.assert_close(read.dictionary.encode(x).dense(), before)
    assert (
        len(read.notes) == 1 and "overtone.json was not used" in read.notes[0] and "write the folder" in read.notes[0]
    )
    assert ("overtone.safetensors is not what was written with it" in read.notes[0]) == ("never" not in harm)


def test_a_convert_through_three_formats_ends_where_it_began(tmp_path):
    dictionary = trained("top_k")
    export_dictionary(dictionary, tmp_path / "a", "overtone", facts=FACTS)
    convert(tmp_path / "a", tmp_path / "b", "saelens")
    convert(tmp_path / "b", tmp_path / "c", "sparsify")
    read, written = convert(tmp_path / "c", tmp_path / "d", "overtone")
    assert read.format == "sparsify" and written.exact
    assert_same_bits(load_dictionary(tmp_path / "d"), dictionary.folded())
    assert import_dictionary(tmp_path / "d").facts.items() >= FACTS.items()


# ------------------------------------------------------------------------------------------------------ what is refused
@pytest.mark.parametrize("format", FORMATS)
def test_a_dictionary_without_matrices_is_refused_with_the_way_out(format, tmp_path):
    with pytest.raises(CapabilityError, match=r"dictionary\.centroids.*--to overtone"):
        export_dictionary(trained("k_means"), tmp_path / "out", format, facts=FACTS)
    assert not (tmp_path / "out").exists() and not list(tmp_path.iterdir()), "nothing half-written stays"


@pytest.mark.parametrize("format", [name for name in FORMATS if name != "saelens"])
def test_signed_codes_are_refused_where_there_are_none_naming_both_ways(format, tmp_path):
    with pytest.raises(CapabilityError, match=r"holds.*--split-signs.*--to overtone"):
        export_dictionary(trained("abs_top_k"), tmp_path / "out", format, facts=FACTS)


def test_two_sided_thresholds_have_no_place_in_saelens(tmp_path):
    dictionary = dictionary_of(plain("above-signed"))
    with pytest.raises(CapabilityError, match="two-sided threshold"):
        export_dictionary(dictionary, tmp_path / "out", "saelens")
    assert export_dictionary(dictionary, tmp_path / "out", "saelens", split_signs=True).folder.is_dir()


def test_formats_that_are_only_read_say_which_are_written(tmp_path):
    with pytest.raises(CapabilityError, match="read, not written.*saelens"):
        export_dictionary(trained("top_k"), tmp_path / "out", "openai")
    with pytest.raises(SettingError, match="Did you mean 'saelens'"):
        export_dictionary(trained("top_k"), tmp_path / "out", "saelen")


def test_a_folder_of_someone_else_is_left_alone_and_our_own_is_replaced(tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "thesis.tex").write_text("mine")
    with pytest.raises(StoreError, match="no export of overtone"):
        export_dictionary(trained("top_k"), tmp_path / "out", "saelens")
    assert (tmp_path / "out" / "thesis.tex").read_text() == "mine"
    export_dictionary(trained("top_k"), tmp_path / "ours", "saelens")
    export_dictionary(trained("relu_l1"), tmp_path / "ours", "saelens")
    assert json.loads((tmp_path / "ours" / "cfg.json").read_text())["architecture"] == "standard"


def test_layers_of_circuit_tracer_gather_in_one_folder(tmp_path):
    for layer in (0, 1):
        facts = {**FACTS, "site": f"mlp_in.{layer}"}
        export_dictionary(trained("relu_l1"), tmp_path / "set", "circuit_tracer", facts=facts)
    assert {p.name for p in tmp_path.glob("set/layer_*")} == {"layer_0.safetensors", "layer_1.safetensors"}
    with pytest.raises(SettingError, match=r"2 layers.*layer_0\.safetensors"):
        import_dictionary(tmp_path / "set")
    read = import_dictionary(tmp_path / "set" / "layer_1.safetensors")
    assert read.facts["site"] == "mlp_in.1"
    assert_same_bits(read.dictionary, trained("relu_l1").folded())
    with pytest.raises(SettingError, match=r"--site mlp_in\.3"):
        export_dictionary(trained("relu_l1"), tmp_path / "other", "circuit_tracer")


# ------------------------------------------------------------------------------------------ two readings, and bad files
def saelens(folder, rule="positive", *, remove=(), unit=False, **changes):
    """A SAELens folder with changes to its cfg.json."""
    form = plain(rule).rescaled() if unit else plain(rule)
    export_dictionary(dictionary_of(form), folder, "saelens")
    cfg = json.loads((folder / "cfg.json").read_text()) | changes
    (folder / "cfg.json").write_text(json.dumps({k: v for k, v in cfg.items() if k not in remove}))
    return folder


def test_whether_the_constant_is_subtracted_is_asked(tmp_path):
    folder = saelens(tmp_path / "out", remove=("apply_b_dec_to_input",))
    with pytest.raises(SettingError, match=r"--apply-b-dec-to-input .*apply_b_dec_to_input\): true .* or false"):
        import_dictionary(folder)
    for said in (True, False):
        assert import_dictionary(folder, choices=Choices(apply_b_dec_to_input=said)).dictionary.centred is said


def test_a_scale_that_is_not_in_the_file_is_asked(tmp_path):
    folder = saelens(tmp_path / "out", normalize_activations="expected_average_only_in")
    with pytest.raises(SettingError, match=r"norm_scale\): 1 if it is folded .*, or the factor"):
        import_dictionary(folder)
    x = states()
    as_it_is = import_dictionary(folder, choices=Choices(norm_scale=1)).dictionary
    scaled = import_dictionary(folder, choices=Choices(norm_scale=0.5)).dictionary
    torch.testing.assert_close(scaled.encode(x).dense(), as_it_is.encode(x / 2).dense())
    torch.testing.assert_close(scaled.reconstruct(x), 2 * as_it_is.reconstruct(x / 2))


def test_by_what_latents_are_ranked_is_asked_only_where_it_matters(tmp_path):
    missing = ("rescale_acts_by_decoder_norm",)
    import_dictionary(saelens(tmp_path / "unit", "best", remove=missing, unit=True))
    folder = saelens(tmp_path / "free", "best", remove=missing)
    with pytest.raises(SettingError, match=r"rescale_acts_by_decoder_norm\): true .* or false"):
        import_dictionary(folder)
    by_value = import_dictionary(folder, choices=Choices(rescale_acts_by_decoder_norm=False)).dictionary
    by_size = import_dictionary(folder, choices=Choices(rescale_acts_by_decoder_norm=True)).dictionary
    codes = [dictionary.encode(states()) for dictionary in (by_value, by_size)]
    assert not torch.equal(codes[0].dense() != 0, codes[1].dense() != 0)
    torch.testing.assert_close(by_size.atom_norms(), torch.ones(16))


def test_the_scale_of_codes_is_asked_where_dictionary_learning_rescales(tmp_path):
    export_dictionary(dictionary_of(plain("positive").rescaled()), tmp_path / "out", "dictionary_learning")
    path = tmp_path / "out" / "ae.safetensors"
    tensors = load_file(path)
    save_file({**tensors, "decoder.weight": 2 * tensors["decoder.weight"]}, path)
    with pytest.raises(SettingError, match=r"unit_rows\): true .* or false"):
        import_dictionary(tmp_path / "out")
    long, short = (import_dictionary(tmp_path / "out", choices=Choices(unit_rows=said)).dictionary for said in (1, 0))
    x = states()
    torch.testing.assert_close(long.encode(x).dense(), 2 * short.encode(x).dense())
    torch.testing.assert_close(long.reconstruct(x), short.reconstruct(x), rtol=1e-4, atol=1e-4)


def test_rows_normalised_by_themselves_stay_so_in_saelens_and_are_refused_elsewhere(tmp_path):
    (case,) = (Path(__file__).parent / "golden").glob("openai-*/topk")
    read = import_dictionary(case).dictionary
    written = export_dictionary(read, tmp_path / "out", "saelens")
    assert json.loads((tmp_path / "out" / "cfg.json").read_text())["normalize_activations"] == "layer_norm"
    assert_same_bits(import_dictionary(written.folder).dictionary, read)
    for format in set(FORMATS) - {"saelens"}:
        with pytest.raises(CapabilityError, match="normalises each row by itself"):
            export_dictionary(read, tmp_path / "other", format, facts=FACTS)


def test_a_whitening_that_is_not_folded_is_refused(tmp_path):
    with pytest.raises(CapabilityError, match="covariance_whitening"):
        import_dictionary(saelens(tmp_path / "out", normalize_activations="covariance_whitening"))


def test_an_unknown_architecture_tensor_or_activation_is_refused(tmp_path):
    with pytest.raises(CapabilityError, match="temporal"):
        import_dictionary(saelens(tmp_path / "a", architecture="temporal"))
    folder = saelens(tmp_path / "b")
    path = folder / "sae_weights.safetensors"
    save_file({**load_file(path), "gain": torch.ones(3)}, path)
    with pytest.raises(StoreError, match="gain"):
        import_dictionary(folder)
    save_file({"W_enc": torch.zeros(3, 3)}, path)
    with pytest.raises(StoreError, match=r"W_enc.*shape \(3, 3\), expected \(6, 16\)"):
        import_dictionary(folder)
    export_dictionary(trained("top_k"), tmp_path / "c", "sparsify")
    cfg = json.loads((tmp_path / "c" / "cfg.json").read_text())
    (tmp_path / "c" / "cfg.json").write_text(json.dumps({**cfg, "activation": "groupmax"}))
    with pytest.raises(CapabilityError, match="groupmax"):
        import_dictionary(tmp_path / "c")


class Trap:
    """What a hostile pickle does when it is loaded."""

    def __reduce__(self):
        return (open, ("sprung", "w"))


def test_nothing_in_a_pt_file_is_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    torch.save({"encoder.weight": Trap()}, tmp_path / "model.pt")
    with pytest.raises(StoreError, match="never loaded"):
        import_dictionary(tmp_path / "model.pt")
    assert not (tmp_path / "sprung").exists()


def test_npz_files_hold_plain_arrays_or_are_refused(tmp_path):
    export_dictionary(trained("batch_top_k"), tmp_path / "out", "gemma_scope")
    with numpy.load(tmp_path / "out" / "params.npz", allow_pickle=False) as data:
        assert set(data.files) == {"W_enc", "W_dec", "b_enc", "b_dec", "threshold"}
        assert all(data[name].dtype == numpy.float32 for name in data.files)
    numpy.savez(tmp_path / "bad.npz", W_enc=numpy.array([Trap()], dtype=object))
    with pytest.raises(StoreError, match="plain arrays"):
        import_dictionary(tmp_path / "bad.npz")


def test_what_is_no_dictionary_is_told_with_what_is_there(tmp_path):
    (tmp_path / "notes.txt").write_text("nothing")
    with pytest.raises(StoreError, match=r"known format \(circuit_tracer.*notes\.txt"):
        import_dictionary(tmp_path)
    saelens(tmp_path / "layers.3.mlp")
    with pytest.raises(StoreError, match=r"name one, such as .*layers\.3\.mlp"):
        import_dictionary(tmp_path)
    with pytest.raises(StoreError, match="reads"):
        import_dictionary(tmp_path / "notes.txt")


def test_every_format_says_whose_it_is_and_what_it_does():
    for name, entry in entries("formats").items():
        assert entry.thing.name == name and entry.summary and entry.facts["source"]
        assert entry.facts["writes"] == entry.thing.writes and entry.facts["reads"]


def test_pursuit_that_stops_by_other_rules_is_refused(tmp_path):
    export_dictionary(trained("mp_sae"), tmp_path / "out", "saelens")
    cfg = json.loads((tmp_path / "out" / "cfg.json").read_text())
    assert (cfg["architecture"], cfg["max_iterations"]) == ("matching_pursuit", 3)
    (tmp_path / "out" / "cfg.json").write_text(json.dumps({**cfg, "residual_threshold": 0.1}))
    with pytest.raises(CapabilityError, match=r"residual_threshold.*0\.1"):
        import_dictionary(tmp_path / "out")
