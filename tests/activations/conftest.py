"""A miniature model and traces with known steps, shared by the tests of this folder."""

from random import Random

import pytest
import torch

from overtone.data.traces import ReasoningTrace
from overtone.models.hooked import HookedModel

CUT = 4
VOCABULARY = 40


def tiny_model(seed: int = 0, layers: int = 3) -> HookedModel:
    """A random GPT-2 of width 16: learned positions, so that a wrong position id shows."""
    from transformers import GPT2Config, GPT2LMHeadModel

    config = GPT2Config(
        n_layer=layers, n_embd=16, n_head=2, vocab_size=VOCABULARY, n_positions=64, bos_token_id=0, eos_token_id=0
    )
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = GPT2LMHeadModel(config).eval()
        for parameter in model.parameters():  # larger than the library's start, so that positions and tokens matter
            torch.nn.init.normal_(parameter, std=0.3)
    return HookedModel.wrap(model, name=f"tiny-{seed}")


def some_traces(n: int = 25, seed: int = 0) -> list[ReasoningTrace]:
    """Prompts of 2 to 6 tokens and 1 to 6 steps of 1 to 5 tokens, ids above the delimiter's."""
    rng = Random(seed)

    def words(low: int, high: int) -> list[int]:
        return [rng.randrange(5, VOCABULARY) for _ in range(rng.randint(low, high))]

    traces = []
    for document in range(n):
        response = [t for _ in range(rng.randint(1, 6)) for t in [*words(1, 5), CUT]]
        traces.append(ReasoningTrace((*words(1, 5), CUT), tuple(response), 100 + document, f"g{document}"))
    return traces


@pytest.fixture(scope="session")
def model():
    return tiny_model()


@pytest.fixture(scope="session")
def traces():
    return some_traces()


@pytest.fixture
def helpers():
    """The functions above, for tests that vary them (a conftest cannot be imported by name)."""
    return {"tiny_model": tiny_model, "some_traces": some_traces}
