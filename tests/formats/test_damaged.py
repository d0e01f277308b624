"""Folders of other libraries that are damaged, or not what they say: one line that says so, never a traceback."""

import json
import re
import shutil
from pathlib import Path

import numpy
import pytest
import torch
from safetensors.torch import load_file, save_file

from overtone.core.errors import OvertoneError, StoreError
from overtone.formats.choices import Choices
from overtone.formats.exchange import import_dictionary, recognise

CASES = sorted(path.parent for path in (Path(__file__).parent / "golden").glob("*/*/expected.safetensors"))
ANSWERS = Choices(apply_b_dec_to_input=True, norm_scale=1, rescale_acts_by_decoder_norm=False, unit_rows=False)
STATISTICS = {
    "stats_last_nonzero",
    "latents_activation_frequency",
    "latents_mean_square",
    "group_sizes",
    "activation.k",
}
STATISTICS |= {"activation.postact_fn"}  # kept by their libraries, used by no dictionary
OPTIONAL = {"activation_function.threshold", "W_skip"}  # circuit-tracer says by a tensor's presence what it is
BUDGET = {"k", "threshold"}  # of classes that have both and need one at inference


def name_of(case):
    return f"{case.parent.name}/{case.name}"


def weights_of(folder):
    """The file of weights of a folder."""
    names = ("*.npz", "*.pt", "sae*.safetensors", "layer_*.safetensors")
    return next(path for name in names for path in folder.glob(name))


def held(path):
    """What a file of weights holds: name -> tensor, or plain data."""
    if path.suffix == ".npz":
        with numpy.load(path) as data:
            return {name: torch.from_numpy(data[name]) for name in data.files}
    return torch.load(path, weights_only=True) if path.suffix == ".pt" else load_file(path)


def write(path, tensors):
    """The file of weights with other content."""
    if path.suffix == ".npz":
        numpy.savez(path, **{name: tensor.numpy() for name, tensor in tensors.items()})  # pyright: ignore
    elif path.suffix == ".pt":
        torch.save(tensors, path)
    else:
        save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, path)


def refused(folder, format, *, told="."):
    """The error of reading a folder: one line, with what it is to name."""
    with pytest.raises(OvertoneError, match=told) as error:
        import_dictionary(folder, format, ANSWERS)
    assert "\n" not in str(error.value)


@pytest.fixture(params=CASES, ids=name_of)
def copy(request, tmp_path):
    """(a copy of a golden folder, its format)."""
    folder = tmp_path / "copy"
    shutil.copytree(request.param, folder, ignore=shutil.ignore_patterns("expected.safetensors"))
    known = recognise(folder)
    assert known is not None and import_dictionary(folder, known.name, ANSWERS)
    return folder, known.name


def test_a_file_that_was_cut_off_is_named(copy):
    folder, format = copy
    for path in [path for path in folder.iterdir() if path.suffix != ".yaml"]:
        whole = path.read_bytes()
        for length in (0, 1, len(whole) // 2, len(whole) - 1):
            path.write_bytes(whole[:length])
            refused(folder, format, told=path.name)
        path.write_bytes(whole)
        path.unlink()
        refused(folder, format)
        path.write_bytes(whole)


def test_a_tensor_that_is_missing_damaged_or_of_another_type_is_named(copy):
    folder, format = copy
    path = weights_of(folder)
    whole = held(path)
    for name, tensor in whole.items():
        if name in STATISTICS or not isinstance(tensor, torch.Tensor):
            continue
        changes = {
            "missing": None,
            "nan": torch.full_like(tensor.float(), torch.nan),
            "text": torch.ones(3, 5, 2),
            "integer": tensor.long() * 0 - 1,
        }
        for what, changed in changes.items():
            others = {key: value for key, value in whole.items() if key != name}
            write(path, others if changed is None else {**others, name: changed})
            may_miss = what == "missing" and format == "circuit_tracer" and name in OPTIONAL
            if may_miss or (name in BUDGET and format == "dictionary_learning"):
                read_or_refused(folder, format)
            else:
                refused(folder, format, told=re.escape(name))


def read_or_refused(folder, format):
    """Where a reading without it exists, it is finite."""
    try:
        dictionary = import_dictionary(folder, format, ANSWERS).dictionary
    except OvertoneError as error:
        assert "\n" not in str(error)
    else:
        assert all(not tensor.isnan().any() for tensor in dictionary.state_dict().values())


def test_a_tensor_that_nobody_asked_for_is_refused(copy):
    folder, format = copy
    if format == "openai":
        pytest.skip("its files hold statistics of training under any name")
    path = weights_of(folder)
    write(path, {**held(path), "gain": torch.ones(16)})
    refused(folder, format, told="gain")


WRONG = [None, "many", -1, 0, 2.5, True, [], {}, {"k": "many"}]


def test_a_setting_that_is_missing_or_of_another_type_is_one_line(copy):
    folder, format = copy
    for path in folder.glob("*.json"):
        whole = json.loads(path.read_text())
        for key in whole:
            path.write_text(json.dumps({k: v for k, v in whole.items() if k != key}))
            read_or_refused(folder, format)
            for value in WRONG:
                path.write_text(json.dumps({**whole, key: value}))
                read_or_refused(folder, format)
            for inner in whole[key] if isinstance(whole[key], dict) else ():
                for value in WRONG:
                    path.write_text(json.dumps({**whole, key: {**whole[key], inner: value}}))
                    read_or_refused(folder, format)
        for text in ("[]", "3", "{", ""):
            path.write_text(text)
            refused(folder, format, told=path.name)


@pytest.mark.parametrize(
    "format", ["saelens", "sparsify", "dictionary_learning", "gemma_scope", "circuit_tracer", "openai"]
)
@pytest.mark.parametrize("case", CASES, ids=name_of)
def test_a_folder_read_as_another_format_is_one_line(case, format, tmp_path):
    read_or_refused(case, format)
    (tmp_path / "nothing").mkdir()
    refused(tmp_path / "nothing", format)


# ------------------------------------------------------------------------------------------------------ one at a time
def golden(name, tmp_path):
    """A copy of one golden folder."""
    source = next(case for case in CASES if name_of(case).endswith(name))
    return Path(shutil.copytree(source, tmp_path / "copy"))


def test_what_a_setting_should_be_is_said(tmp_path):
    folder = golden("sparsify-1.3.3/topk", tmp_path)
    cfg = json.loads((folder / "cfg.json").read_text())
    (folder / "cfg.json").write_text(json.dumps({key: value for key, value in cfg.items() if key != "k"}))
    with pytest.raises(StoreError, match=r"cfg\.json does not say k, which is a whole number above 0"):
        import_dictionary(folder)
    with pytest.raises(StoreError, match=r"sae_weights\.safetensors"):
        import_dictionary(folder, "saelens")
    (folder / "cfg.json").write_text(json.dumps({**cfg, "d_in": "many"}))
    with pytest.raises(StoreError, match=r"says d_in='many'; expected a whole number above 0"):
        import_dictionary(folder)


def test_a_threshold_of_an_architecture_that_has_none_is_no_rectifier(tmp_path):
    folder = golden("saelens-6.54.12/jumprelu", tmp_path)
    cfg = json.loads((folder / "cfg.json").read_text())
    del cfg["architecture"]
    (folder / "cfg.json").write_text(json.dumps(cfg))
    with pytest.raises(StoreError, match="holds threshold, which .* in the architecture 'standard'"):
        import_dictionary(folder)


def test_a_config_that_is_no_yaml_mapping_is_named(tmp_path):
    folder = golden("circuit_tracer-0.5.0/relu", tmp_path)
    for text in ("a: [1", "- a\n- b", "model_name: [1]", "\0"):
        (folder / "config.yaml").write_text(text)
        refused(folder, "circuit_tracer", told=r"config\.yaml")


def test_a_threshold_that_nothing_passes_may_be_infinite(tmp_path):
    folder = golden("saelens-6.54.12/jumprelu", tmp_path)
    path = weights_of(folder)
    write(path, {**held(path), "threshold": torch.full((16,), torch.inf)})
    assert not import_dictionary(folder).dictionary.encode(torch.randn(4, 6)).dense().any()
