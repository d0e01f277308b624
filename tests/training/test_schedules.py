"""Learning rates are counted in tokens."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from overtone.core.errors import SettingError
from overtone.training.schedules import Schedule


def test_it_rises_stays_and_falls_to_zero():
    schedule = Schedule(warm_up=0.1, decay=0.5)
    assert [schedule.factor(p) for p in (0.0, 0.05, 0.1, 0.5, 0.75, 1.0)] == [0.0, 0.5, 1.0, 1.0, 0.5, 0.0]


@given(st.floats(0, 0.5), st.floats(0, 0.5), st.floats(0, 1))
def test_it_is_a_share(warm_up, decay, progress):
    assert 0.0 <= Schedule(warm_up, decay).factor(progress) <= 1.0


@pytest.mark.parametrize(("warm_up", "decay"), [(-0.1, 0.2), (0.2, -0.1), (0.6, 0.6)])
def test_impossible_shares_are_refused(warm_up, decay):
    with pytest.raises(SettingError, match="together at most 1"):
        Schedule(warm_up, decay)
