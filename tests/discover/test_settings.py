"""Settings of the main job: everything that decides a result, refused where it cannot mean anything."""

import dataclasses
import json

import pytest

from overtone.core.errors import SettingError
from overtone.discover.settings import (
    CausalSettings,
    ConfidenceSettings,
    DictionarySettings,
    DiscoverSettings,
    SamplingSettings,
)


def test_settings_survive_json():
    settings = DiscoverSettings(
        layers=(1, 2), causal=CausalSettings(behaviours=("reflection",), doses=(-0.3, 0.1)), seed=3
    )
    assert DiscoverSettings.from_dict(json.loads(json.dumps(settings.to_dict()))) == settings


def test_the_defaults_steer_where_a_step_is_decided_and_name_where_it_is_written():
    settings = DiscoverSettings()
    assert settings.boundary.anchor == "next" and settings.naming.anchor != "next"
    assert settings.model == "bundled" and not settings.prompts


@pytest.mark.parametrize(
    ("kind", "changes", "said"),
    [
        (SamplingSettings, {"n_traces": 15}, "at least 16"),
        (SamplingSettings, {"max_new_tokens": 0}, "max_new_tokens"),
        (SamplingSettings, {"temperature": -0.1}, "greedy"),
        (SamplingSettings, {"batch_rows": 0}, "batch_rows"),
        (DictionarySettings, {"anchor": "nxt"}, "next"),
        (DictionarySettings, {"expansion": 0.0}, "positive"),
        (DictionarySettings, {"epochs": 0}, "at least 1"),
        (CausalSettings, {"n_problems": 3}, "at least 4"),
        (CausalSettings, {"doses": (0.25, 0.5)}, "negative and a positive"),
        (CausalSettings, {"doses": (-0.5, 0.0, 0.5)}, "0 is always measured"),
        (CausalSettings, {"doses": (-0.5, 0.5, 0.5)}, "once"),
        (CausalSettings, {"n_random": 0}, "random control"),
        (CausalSettings, {"layer": -2}, "-1 to choose"),
        (ConfidenceSettings, {"iterations": 0}, "at least 1"),
        (ConfidenceSettings, {"budget": 0.0}, "positive"),
        (DiscoverSettings, {"labels": "guess"}, "truth, keywords, judge"),
        (DiscoverSettings, {"workers": 0}, "at least 1 process"),
        (DiscoverSettings, {"layers": (0, -1)}, "count from 0"),
        (DiscoverSettings, {"sizes": (0.1, 0.0)}, "positive"),
        (DiscoverSettings, {"model": "somewhere"}, "--prompts"),
        (DiscoverSettings, {"boundary": DictionarySettings()}, "where they act"),
    ],
)
def test_what_cannot_work_is_refused_with_what_is_allowed(kind, changes, said):
    with pytest.raises(SettingError, match=said):
        kind(**changes)


@pytest.mark.parametrize(
    "kind", [SamplingSettings, DictionarySettings, CausalSettings, ConfidenceSettings, DiscoverSettings]
)
def test_a_misspelt_setting_is_refused_by_the_name_it_resembles(kind):
    known = dataclasses.fields(kind)[0].name
    with pytest.raises(SettingError, match=f"Did you mean '{known}'"):
        kind.from_dict({known[:-1]: 1})
