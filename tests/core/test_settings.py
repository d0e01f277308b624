"""Settings survive JSON and refuse what they do not know."""

import json
from dataclasses import dataclass, field

import pytest

from overtone.core.errors import SettingError
from overtone.core.settings import Settings, require
from overtone.core.sites import Site


@dataclass(frozen=True)
class Inner(Settings):
    rate: float = 0.5


@dataclass(frozen=True)
class Outer(Settings):
    count: int = 3
    doses: tuple[float, ...] = (1.0, 2.0)
    name: str | None = None
    inner: Inner = field(default_factory=Inner)

    def __post_init__(self):
        require(self.count > 0, f"count={self.count}: use 1 or more.")


def test_settings_are_equal_after_a_round_trip_through_json():
    made = Outer(count=7, doses=(0.25,), name="x", inner=Inner(0.1))
    assert Outer.from_dict(json.loads(json.dumps(made.to_dict()))) == made


def test_an_unknown_key_is_refused_with_the_nearest_known_one():
    with pytest.raises(SettingError, match=r"no setting 'cuont'. Did you mean 'count'"):
        Outer.from_dict({"cuont": 1})


def test_validation_runs_again_on_a_changed_copy():
    assert Outer().replaced(count=5).count == 5
    with pytest.raises(SettingError, match="use 1 or more"):
        Outer().replaced(count=0)


def test_values_that_parse_from_text_are_restored():
    @dataclass(frozen=True)
    class Placed(Settings):
        site: Site = field(default_factory=lambda: Site("residual", 1))

    assert Placed.from_dict(Placed(Site("mlp_out", 2)).to_dict()).site == Site("mlp_out", 2)
