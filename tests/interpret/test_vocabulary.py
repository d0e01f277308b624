"""Logit lens: a direction raises the tokens it points at, whatever norm lies between."""

import pytest
import torch
from torch import nn

from overtone.core.errors import SettingError, ShapeError
from overtone.interpret.vocabulary import vocabulary_effect


class Head:
    """A real final norm and output head on 8 coordinates, ten tokens; token i reads coordinate i for i < 8."""

    def __init__(self, norm: nn.Module) -> None:
        self.norm, self.weight, self.tokenizer = norm, torch.eye(10, 8), self

    def unembed(self, rows):
        return self.norm(rows) @ self.weight.T + torch.arange(10.0)

    def decode(self, ids):
        return f"token {ids[0]}"


@pytest.mark.parametrize("norm", [nn.Identity(), nn.RMSNorm(8)])
def test_a_direction_raises_and_lowers_its_tokens(norm):
    v = torch.zeros(8)
    v[3], v[5] = 1.0, -0.5
    found = vocabulary_effect(Head(norm), v, n=2)
    assert (found.raised[0].token, found.raised[0].id) == ("token 3", 3) and found.lowered[0].id == 5
    assert found.raised[0].shift > 0 > found.lowered[0].shift


def test_without_a_norm_the_shift_is_the_head_times_the_vector_less_its_mean(generator):
    v, rows = torch.randn(8, generator=generator), torch.randn(5, 8, generator=generator)
    head = Head(nn.Identity())
    wanted = head.weight @ v - (head.weight @ v).mean()
    for strength in (0.1, 3.0):
        found = vocabulary_effect(head, v, rows=rows, strength=strength, n=5)
        for entry in (*found.raised, *found.lowered):
            assert entry.shift == pytest.approx(float(wanted[entry.id]), abs=1e-5)


def test_the_opposite_direction_does_the_opposite(generator):
    v, rows = torch.randn(8, generator=generator), torch.randn(5, 8, generator=generator)
    head = Head(nn.LayerNorm(8))
    there, back = vocabulary_effect(head, v, rows=rows, n=3), vocabulary_effect(head, -v, rows=rows, n=3)
    assert [t.id for t in there.raised] == [t.id for t in back.lowered]


def test_mistakes_are_named():
    with pytest.raises(SettingError, match="strength=0"):
        vocabulary_effect(Head(nn.Identity()), torch.ones(8), strength=0)
    with pytest.raises(ShapeError, match="must be \\(width,\\)"):
        vocabulary_effect(Head(nn.Identity()), torch.ones(8), rows=torch.ones(2, 7))
