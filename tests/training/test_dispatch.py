"""Which kernels a device gets."""

import pytest

from overtone.training.kernels import dispatch, sparse


@pytest.fixture(autouse=True)
def forgotten_choices():
    dispatch._of_kind.cache_clear()
    yield
    dispatch._of_kind.cache_clear()


def test_without_triton_an_accelerator_gets_plain_torch(monkeypatch):
    monkeypatch.setattr(dispatch, "find_spec", lambda name: None)
    kernels = dispatch.kernels_for("cuda:1")
    assert (kernels.name, kernels.decode) == ("torch", sparse.decode)
