"""A strength in any unit becomes one absolute number, or says what is missing."""

import pytest
import torch

from overtone.core.errors import SettingError
from overtone.core.sites import Site
from overtone.directions import unit_direction
from overtone.steering.strength import Strength, as_strength

ROWS = torch.tensor([[2.0, 0.0], [-4.0, 0.0], [0.0, 9.0]])
D = unit_direction(torch.tensor([5.0, 0.0]), Site("residual", 0), rows=ROWS)


@pytest.mark.parametrize(("unit", "one"), [("absolute", 1.0), ("raw", 5.0), ("projection", 2.0), ("norm", 5.0)])
def test_one_of_each_unit(unit, one):
    assert Strength(1.0, unit).absolute(D) == pytest.approx(one)
    assert Strength(-2.5, unit).absolute(D) == pytest.approx(-2.5 * one)
    assert Strength(0.0, unit).absolute(unit_direction(torch.ones(2), Site("residual", 0))) == 0.0


def test_a_unit_without_reference_says_how_to_get_one():
    with pytest.raises(SettingError, match="measured"):
        Strength(1.0, "norm").absolute(unit_direction(torch.ones(2), Site("residual", 0)))
    with pytest.raises(SettingError, match="strength_for_kl"):
        Strength(0.1, "nats").absolute(D)


def test_unknown_units_and_numbers_are_refused():
    with pytest.raises(SettingError, match="Did you mean 'norm'"):
        Strength(1.0, "norms")
    with pytest.raises(SettingError, match="finite"):
        Strength(float("nan"))


def test_a_bare_number_is_absolute():
    assert as_strength(3) == Strength(3.0, "absolute")
    assert str(Strength(1.5, "projection")) == "1.5 projection"
