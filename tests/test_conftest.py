"""The guarantees that tests/conftest.py gives to every other test."""

import socket
import sys

import pytest
import torch
from jaxtyping import TypeCheckError, install_import_hook

from network_guard import is_loopback
from overtone.dictionaries.codes import SparseCodes


def test_connecting_elsewhere_is_refused_without_a_packet():
    with (
        socket.socket() as sock,
        pytest.raises(RuntimeError, match="connects to 192.0.2.1:80; tests run without network"),
    ):
        sock.connect(("192.0.2.1", 80))


def test_looking_up_a_name_is_refused():
    with pytest.raises(RuntimeError, match="looks up 'model.invalid'"):
        socket.getaddrinfo("model.invalid", 443)


def test_a_server_of_ours_can_be_reached():
    with socket.create_server(("127.0.0.1", 0)) as server, socket.create_connection(server.getsockname()[:2]):
        pass


@pytest.mark.parametrize(
    ("host", "local"), [("::1", True), ("127.9.9.9", True), (None, True), ("0.0.0.0", True), ("10.0.0.1", False)]
)
def test_loopback_is_told_from_the_rest(host, local):
    assert is_loopback(host) is local


def test_one_torch_thread():
    assert torch.get_num_threads() == 1


@pytest.mark.parametrize("attempt", [1, 2])
def test_every_test_starts_from_the_same_random_state(attempt):
    assert torch.rand(1).item() == pytest.approx(torch.rand(1, generator=torch.Generator().manual_seed(0)).item())


SOURCE = """
from __future__ import annotations
from dataclasses import dataclass
from typing import TYPE_CHECKING
from jaxtyping import Float
from torch import Tensor
if TYPE_CHECKING:
    from nowhere import Ghost

def gram(x: Float[Tensor, "rows width"], scale: float = 1, ghost: Ghost | None = None) -> Float[Tensor, "width width"]:
    return scale * (x.T @ x if ghost is None else x @ x.T)

@dataclass
class Named:
    x: Float[Tensor, "rows width"]
    y: Float[Tensor, " rows"]

@dataclass
class Plain:
    x: Tensor
"""


@pytest.fixture
def sample(tmp_path, monkeypatch):
    """A module imported through the same hook that the package is imported through."""
    (tmp_path / "shaped_sample.py").write_text(SOURCE)
    monkeypatch.syspath_prepend(tmp_path)
    with install_import_hook("shaped_sample", "shape_checks.check"):
        import shaped_sample
    yield shaped_sample
    sys.modules.pop("shaped_sample")


@pytest.fixture
def gram(sample):
    return sample.gram


def test_declared_shapes_are_checked_on_the_way_in_and_out(gram):
    assert gram(torch.ones(3, 2)).shape == (2, 2)
    with pytest.raises(TypeCheckError):
        gram(torch.ones(3))
    with pytest.raises(TypeCheckError):
        gram(torch.ones(3, 2), ghost=object())


def test_fields_of_dataclasses_are_checked_where_they_name_arrays(sample):
    assert sample.Named(torch.ones(3, 2), torch.ones(3)).x.shape == (3, 2)
    with pytest.raises(TypeCheckError):
        sample.Named(torch.ones(3, 2), torch.ones(2))
    assert hasattr(sample.Named.__init__, "__wrapped__") and not hasattr(sample.Plain.__init__, "__wrapped__")


def test_functions_of_the_package_that_name_arrays_are_checked():
    """Those of which annotations are evaluated; and the others are left as they are."""
    codes = SparseCodes(torch.ones(2, 3), torch.arange(6).view(2, 3), 6)
    with pytest.raises(TypeCheckError):
        SparseCodes.from_dense(torch.ones(3))
    assert hasattr(SparseCodes.counts, "__wrapped__") and not hasattr(SparseCodes.to, "__wrapped__")
    assert codes.counts().shape == (2,)


def test_other_annotations_are_not_checked(gram):
    assert gram(torch.ones(3, 2), scale=2, ghost=None).shape == (2, 2)
