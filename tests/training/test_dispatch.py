"""Which kernels a device gets."""

from importlib.util import find_spec

import pytest
import torch

from overtone.core.errors import SettingError
from overtone.core.seeds import torch_generator
from overtone.dictionaries.kernels import dispatch, sparse
from overtone.dictionaries.presets.abs_top_k import AbsTopK
from overtone.dictionaries.presets.batch_top_k import BatchTopK
from overtone.dictionaries.presets.top_k import TopK
from overtone.training.fit import fit


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


def test_what_compiled_kernels_nominate_with_can_be_forced(monkeypatch):
    monkeypatch.setenv("OVERTONE_NOMINEES", "single")
    assert "nominees" not in dispatch.kernels_for("cpu").name
    dispatch._of_kind.cache_clear()
    monkeypatch.setenv("OVERTONE_NOMINEES", "int4")
    with pytest.raises(SettingError, match="single, bf16, int8"):
        dispatch.kernels_for("cpu")


def without(monkeypatch, *missing):
    kinds = [kind for kind in dispatch.KINDS if kind.name not in missing]
    monkeypatch.setattr(dispatch, "KINDS", tuple(replace_is_fast(kind) for kind in kinds))


def replace_is_fast(kind):
    """The same kind, which says that it is fast wherever the test runs."""
    return type("Fast", (type(kind),), {"is_fast": lambda self: True})()


@pytest.mark.parametrize(
    ("asked", "missing", "name"),
    [
        ("", (), "torch (int8 nominees)"),
        ("int8", (), "torch (int8 nominees)"),
        ("bf16", (), "torch (bf16 nominees)"),
        ("single", (), "torch"),
        ("", ("int8",), "torch (bf16 nominees)"),
        ("", ("int8", "bf16"), "torch"),
    ],
)
def test_what_torch_s_selection_nominates_with_is_the_fastest_there_is_or_what_is_asked_for(
    asked, missing, name, monkeypatch
):
    without(monkeypatch, *missing)
    monkeypatch.setenv("OVERTONE_KERNELS", "torch")
    monkeypatch.setenv("OVERTONE_NOMINEES", asked)
    assert dispatch.kernels_for("cpu").name == name


def test_nominees_that_torch_cannot_have_are_refused(monkeypatch):
    without(monkeypatch, "int8")
    monkeypatch.setenv("OVERTONE_KERNELS", "torch")
    monkeypatch.setenv("OVERTONE_NOMINEES", "int8")
    with pytest.raises(SettingError, match="no fast int8 products"):
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


@pytest.mark.skipif(find_spec("triton") is None, reason="Triton (a gigabyte) is not installed")
def test_a_gpu_gets_torch_s_kernels_where_they_are_asked_for_or_triton_cannot_build_its_own(monkeypatch, caplog):
    from overtone.dictionaries.kernels import halves

    monkeypatch.setenv("OVERTONE_KERNELS", "torch")
    assert dispatch.kernels_for("cuda").decode is sparse.decode
    monkeypatch.setenv("OVERTONE_KERNELS", "auto")
    assert dispatch.kernels_for("cuda").name == "triton"

    def cannot(rows):
        raise RuntimeError("no C compiler")

    dispatch._of_kind.cache_clear()
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch, "ones", lambda *shape, device: torch.zeros(shape))
    monkeypatch.setattr(halves, "halves_of", cannot)
    assert dispatch.kernels_for("cuda").decode is sparse.decode
    assert "Triton cannot build kernels here: no C compiler" in caplog.text


@pytest.mark.parametrize("make", [TopK, BatchTopK, AbsTopK])
def test_trainings_on_all_kinds_of_kernels_take_the_same_course(make, monkeypatch):
    states = torch.randn(600, 24, generator=torch_generator(0, "kinds"))
    losses = {}
    for kind in ("plain", "torch", "torch bf16", "auto", "single"):
        monkeypatch.setenv("OVERTONE_KERNELS", "auto" if kind == "single" else kind.split()[0])
        monkeypatch.setenv("OVERTONE_NOMINEES", {"single": "single", "torch bf16": "bf16"}.get(kind, ""))
        dispatch._of_kind.cache_clear()
        fitted = fit(make(160, k=6), states, n_tokens=12_000, batch_rows=200, record_every=1000, quiet=True)
        losses[kind] = torch.tensor([record.loss for record in fitted.record])
    assert losses["plain"][-1] < 0.8 * losses["plain"][0]
    for kind in ("torch", "torch bf16", "auto", "single"):
        torch.testing.assert_close(losses[kind], losses["plain"], rtol=1e-4, atol=0)
