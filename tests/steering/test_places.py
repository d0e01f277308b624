"""What is said next at the ends of texts: as a pass over the whole text gives it, whatever was asked before."""

import pytest
import torch

from models.miniatures import VOCABULARY, WIDTH, miniature, some_rows
from overtone.core.errors import DataError, ShapeError, SiteError
from overtone.core.sites import Site
from overtone.directions import unit_direction
from overtone.steering.bias import LogitBias
from overtone.steering.edits.add import Add
from overtone.steering.places import Places
from overtone.steering.steer import Steering, steered
from overtone.steering.when import When

TEXTS = some_rows((12, 9, 15, 10, 3, 2), seed=7)
AT_END = When(include_prompt_end=True)


def add(strength: float, site: str = "residual.1", when: When = AT_END) -> list[Steering]:
    vector = torch.randn(WIDTH, generator=torch.Generator().manual_seed(4))
    return [Steering(unit_direction(vector, site), Add(strength), when)]


def by_hand(model, text, steering=()):
    """Logits after a text, alone and without a cache."""
    tokens = torch.tensor(text)[None]
    with steered(model, steering):
        return model.logits(tokens, prompt_columns=len(text))[0, -1]


@pytest.mark.parametrize("family", ["llama", "gpt2", "gemma2", "mistral"])  # the last two with sliding windows
def test_places_say_what_a_pass_over_the_whole_text_says(family):
    model = miniature(family)
    places = Places(model, TEXTS, batch_tokens=20)
    for steering in ((), add(3.0), add(-3.0, "residual.0"), add(1.0), add(2.0, "mlp_out.0"), add(2.0, "residual.0")):
        expected = torch.stack([by_hand(model, text, steering) for text in TEXTS])
        torch.testing.assert_close(places.logits(steering), expected, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("family", ["llama", "gpt2", "gemma2"])
def test_places_that_begin_at_a_site_say_the_same_and_hold_less(family):
    model, first = miniature(family), Site("residual", 0)
    whole, short = Places(model, TEXTS), Places(model, TEXTS, first=first)
    for steering in (
        (),
        add(3.0),
        add(-3.0, "residual.0"),
        add(2.0, "mlp_out.1"),
        (*add(1.0), *add(1.0, "residual.0")),
    ):
        torch.testing.assert_close(short.logits(steering), whole.logits(steering), atol=1e-5, rtol=1e-5)
    assert (
        sum(map(_held, short._batches)) < sum(map(_held, whole._batches)) or family == "gemma2"
    )  # sliding windows stay
    for site in ("mlp_out.0", "embedding"):
        with pytest.raises(DataError, match="before residual.0, where these places begin. Make them without"):
            short.logits(add(1.0, site))
    with pytest.raises(DataError, match="first=mlp_out.0: a pass can begin at residual sites only"):
        Places(model, TEXTS, first=Site("mlp_out", 0))
    with pytest.raises(SiteError, match="layers"):
        Places(model, TEXTS, first=Site("residual", 99))


def _held(batch) -> int:
    """Bytes of a batch's keys and values, room to grow included."""
    layers = [layer for layer in batch.cache.past.layers if layer.is_initialized]
    return sum(layer.keys.untyped_storage().nbytes() + layer.values.untyped_storage().nbytes() for layer in layers)


def test_what_was_asked_before_leaves_no_trace():
    places = Places(miniature("llama"), TEXTS)
    before = places.logits(())
    assert not torch.allclose(places.logits(add(5.0)), before)
    assert torch.equal(places.logits(()), before)


def test_an_edit_that_applies_to_no_end_changes_nothing():
    places = Places(miniature("llama"), TEXTS)
    other = frozenset(range(VOCABULARY)) - {text[-1] for text in TEXTS}
    assert torch.equal(places.logits(add(5.0, when=When(include_prompt_end=True, after=other))), places.logits(()))


def test_a_bias_is_added_at_the_ends():
    places, vector = Places(miniature("llama"), TEXTS), torch.arange(VOCABULARY, dtype=torch.float32)
    torch.testing.assert_close(places.logits([LogitBias(vector, AT_END)]), places.logits(()) + vector)


def test_texts_need_a_history_and_directions_must_fit():
    with pytest.raises(DataError, match="two tokens"):
        Places(miniature("llama"), [[1]])
    with pytest.raises(DataError, match="two tokens"):
        Places(miniature("llama"), [])
    wide = unit_direction(torch.ones(WIDTH + 1), "residual.1")
    with pytest.raises(ShapeError):
        Places(miniature("llama"), TEXTS).logits([Steering(wide, Add(1.0), AT_END)])
