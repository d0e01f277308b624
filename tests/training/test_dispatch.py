"""Which kernels a device gets."""

import pytest

from overtone.core.errors import SettingError
from overtone.training.kernels import dispatch, sparse


@pytest.fixture(autouse=True)
def forgotten_choices():
    dispatch._of_kind.cache_clear()
    yield
    dispatch._of_kind.cache_clear()


def test_a_kind_can_be_forced_and_says_its_name(monkeypatch):
    names = {}
    for kind in ("plain", "torch", "auto"):
        monkeypatch.setenv("OVERTONE_KERNELS", kind)
        names[kind] = dispatch.kernels_for("cpu").name
    assert names["plain"] == "torch"
    assert names["auto"].startswith(("compiled (", "torch"))


def test_an_unknown_kind_is_refused_with_those_that_there_are(monkeypatch):
    monkeypatch.setenv("OVERTONE_KERNELS", "fast")
    with pytest.raises(SettingError, match="auto, compiled, torch, plain"):
        dispatch.kernels_for("cpu")


def test_without_a_compiler_training_takes_torch_unless_the_compiled_kernels_are_demanded(monkeypatch, tmp_path):
    monkeypatch.setenv("CC", str(tmp_path / "missing"))
    monkeypatch.setenv("OVERTONE_KERNELS", "auto")
    assert dispatch.kernels_for("cpu").name.startswith("torch")
    monkeypatch.setenv("OVERTONE_KERNELS", "compiled")
    with pytest.raises(SettingError, match="there is no C compiler"):
        dispatch.kernels_for("cpu")


def test_without_triton_an_accelerator_gets_plain_torch(monkeypatch):
    monkeypatch.setattr(dispatch, "find_spec", lambda name: None)
    kernels = dispatch.kernels_for("cuda:1")
    assert (kernels.name, kernels.decode) == ("torch", sparse.decode)
