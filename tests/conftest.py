"""What holds for every test: one torch thread, no network, fixed seeds, shapes checked as they are declared.

Helpers shared by tests live beside this file and are imported by name (`from house import ...`).
"""

import os

# Before anything imports torch. The models under test are small: one thread each is faster than two, repeatable, and
# leaves the second core to the second test process.
os.environ["OMP_NUM_THREADS"] = os.environ["MKL_NUM_THREADS"] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"
os.environ.setdefault("TRITON_INTERPRET", "1")  # kernels for GPUs run on the CPU; set it to 0 to test them on a GPU

import random
import sys

import pytest

import shape_checks
from network_guard import refuse_network

# Rooms in which arrays travel: their array annotations are checked at every call while tests run.
SHAPED = (
    "core", "models", "activations", "dictionaries", "training", "interpret", "directions", "steering", "evaluate",
    "discover",
)  # fmt: skip
shape_checks.install(SHAPED)

sys.addaudithook(refuse_network)


def pytest_addoption(parser):
    parser.addoption("--slow", action="store_true", help="also run the tests that take minutes")


def pytest_collection_modifyitems(config, items):
    if not config.getoption("--slow"):
        for item in items:
            if item.get_closest_marker("slow"):
                item.add_marker(pytest.mark.skip(reason="takes minutes; run with --slow"))


@pytest.fixture(autouse=True)
def fixed_seeds():
    """The same global random state before every test, whatever ran before; loads neither numpy nor torch by itself."""
    random.seed(0)
    if "numpy" in sys.modules:
        sys.modules["numpy"].random.seed(0)
    if "torch" in sys.modules:
        sys.modules["torch"].manual_seed(0)


@pytest.fixture
def generator():
    """A seeded torch generator on the CPU, for everything that asks for its randomness."""
    import torch

    return torch.Generator().manual_seed(0)


@pytest.fixture(scope="session")
def gpu():
    """The accelerator's device, or a skip that says why."""
    import torch

    if not torch.cuda.is_available():
        pytest.skip("no accelerator on this machine")
    return torch.device("cuda")


@pytest.fixture(scope="module")
def however_few_scores():
    """Torch's selection in few bits, which leaves small problems to the dictionary, takes those of this module."""
    from overtone.dictionaries.kernels import candidates

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(candidates, "FEWEST", 0)
        yield


@pytest.fixture
def rounding_as_before():
    """Torch may round operands of products after the test as before it, and kernels keep nothing that depends on it."""
    import torch

    from overtone.dictionaries.kernels import memory

    before = torch.get_float32_matmul_precision()
    yield
    torch.set_float32_matmul_precision(before)
    memory.release()


@pytest.fixture(params=["highest", "high"])
def precision(request, rounding_as_before):
    """Whether torch may round them, with the names of `choices.EXACT`."""
    import torch

    torch.set_float32_matmul_precision(request.param)
    return request.param
