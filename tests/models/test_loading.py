"""Models from folders: equal after a round trip, and one clear line when something is wrong."""

import json

import pytest
import torch
import transformers

from models.miniatures import TABLE, build, padded, some_rows
from overtone.core.errors import ModelError, SettingError
from overtone.core.sites import Site
from overtone.models.hooked import HookedModel


@pytest.fixture
def save(tmp_path):
    """Save the miniature of an architecture (with a tokenizer if asked): save("llama") -> folder."""

    def write(name="llama", *, tokenizer=False, module=None):
        (module or build(name)).save_pretrained(tmp_path / "model")
        if tokenizer:
            words = tokenizers_model({"<unk>": 0, "seven": 1, "wait": 2})
            words.save_pretrained(tmp_path / "model")
        return tmp_path / "model"

    return write


def tokenizers_model(vocabulary):
    from tokenizers import Tokenizer, models, pre_tokenizers

    words = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    return transformers.PreTrainedTokenizerFast(tokenizer_object=words, unk_token="<unk>")


def one_line(error):
    """The message, after checking that it is one line and that no inner failure hangs on it."""
    assert "\n" not in str(error.value)
    assert error.value.__suppress_context__ or error.value.__context__ is None
    return str(error.value)


@pytest.mark.parametrize("name", TABLE)
def test_a_saved_model_comes_back_the_same(name, save):
    batch = padded(some_rows(), "right")
    before, after = HookedModel.wrap(build(name)), HookedModel.load(save(name))
    assert torch.equal(after.logits(*batch), before.logits(*batch))
    assert after.fingerprint == before.fingerprint
    assert not after.model.training and after.name == "model" and after.vocab_size == 97


def test_the_fingerprint_tells_weights_and_shapes_apart_but_not_dtypes(save):
    model = HookedModel.wrap(build("llama"))
    others = [build("llama", seed=1), build("mistral"), build("llama")]
    others[2].model.layers[1].mlp.up_proj.weight.data *= 1.01
    prints = {HookedModel.wrap(module).fingerprint for module in others} | {model.fingerprint}
    assert len(prints) == 4 and all(len(p) == 16 and int(p, 16) >= 0 for p in prints)
    folder = save("llama")
    assert HookedModel.load(folder, dtype="bfloat16").fingerprint == model.fingerprint
    assert HookedModel.load(folder, dtype="float16").model.dtype == torch.float16


def test_a_body_saved_without_its_head_is_loaded_as_such(save):
    model = HookedModel.load(save(module=build("llama").model))
    assert model.read(torch.tensor([[3, 4]]), None, [Site("residual", 2)])
    with pytest.raises(ModelError, match="no vocabulary head"):
        model.logits(torch.tensor([[3, 4]]))


def test_the_tokenizer_comes_along_and_its_absence_is_said_when_it_is_needed(save):
    assert HookedModel.load(save(tokenizer=True)).need_tokenizer()("wait seven")["input_ids"] == [2, 1]
    bare = HookedModel.wrap(build("llama"), name="mini")
    assert bare.tokenizer is None
    with pytest.raises(ModelError, match="mini has no tokenizer. Save it beside the model"):
        bare.need_tokenizer()


def test_a_broken_tokenizer_is_refused(save):
    folder = save(tokenizer=True)
    (folder / "tokenizer.json").write_text("{")
    with pytest.raises(ModelError, match="the tokenizer in .* cannot be read") as error:
        HookedModel.load(folder)
    one_line(error)


@pytest.mark.parametrize("name", ["/no/such/folder", "./nowhere", "~/nowhere", "a/b/c"])
def test_a_folder_that_is_not_there_is_named(name):
    with pytest.raises(ModelError, match="there is no folder") as error:
        HookedModel.load(name)
    assert name in one_line(error)


def test_a_hub_name_without_network_and_copy_says_what_to_do():
    with pytest.raises(ModelError, match="somebody/something is neither a folder nor .*--local-dir") as error:
        HookedModel.load("somebody/something")
    one_line(error)


def test_a_folder_without_a_model_is_refused(tmp_path):
    with pytest.raises(ModelError, match="holds no config.json"):
        HookedModel.load(tmp_path)
    (tmp_path / "config.json").write_text('{"model_type": "llama"}')
    with pytest.raises(ModelError, match="cannot be loaded as a model") as error:
        HookedModel.load(tmp_path)
    one_line(error)


@pytest.mark.parametrize("text", ["{", "[]", '{"model_type": "nonesuch"}', "{}"])
def test_an_unusable_config_is_refused(save, text):
    folder = save()
    (folder / "config.json").write_text(text)
    with pytest.raises(ModelError, match="cannot be loaded as a model") as error:
        HookedModel.load(folder)
    one_line(error)


def test_truncated_and_missing_weights_are_refused(save):
    folder = save()
    weights = folder / "model.safetensors"
    whole = weights.read_bytes()
    weights.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ModelError, match="cannot be loaded as a model") as error:
        HookedModel.load(folder)
    one_line(error)
    from safetensors.torch import load, save_file

    tensors = load(whole)
    save_file({k: v for k, v in tensors.items() if "layers.2" not in k}, weights, metadata={"format": "pt"})
    with pytest.raises(ModelError, match="lacks 9 of its weights .first: model.layers.2"):
        HookedModel.load(folder)


def test_weights_of_another_size_are_refused(save):
    folder = save()
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"intermediate_size": 64}))
    with pytest.raises(ModelError, match="cannot be loaded as a model") as error:
        HookedModel.load(folder)
    one_line(error)


def test_an_unknown_dtype_is_refused(tmp_path):
    with pytest.raises(SettingError, match="Did you mean 'float32'"):
        HookedModel.load(tmp_path, dtype="float3")


def test_a_device_that_is_not_there_is_refused(tmp_path):
    with pytest.raises(SettingError, match="device='nonesuch' cannot be used here"):
        HookedModel.load(tmp_path, device="nonesuch")


def test_loading_leaves_the_progress_bars_of_the_library_as_they_were(save):
    folder = save()
    shown = transformers.utils.logging.is_progress_bar_enabled()
    HookedModel.load(folder)
    assert transformers.utils.logging.is_progress_bar_enabled() == shown
