"""Presets: what the decorator enrols, and the settings that follow from the size."""

from dataclasses import dataclass

import pytest

from overtone.core import catalogue
from overtone.core.errors import SettingError
from overtone.dictionaries.preset import Preset, preset
from overtone.dictionaries.presets.top_k import TopK


@pytest.fixture
def scratch_catalogue(monkeypatch):
    """Whatever is enrolled during the test is forgotten after it."""
    known = catalogue.entries("dictionaries")
    monkeypatch.setitem(catalogue._ENTRIES, "dictionaries", dict(known))


def test_a_name_is_taken_once(scratch_catalogue):
    @dataclass(frozen=True)
    class Impostor(TopK):
        """Not the real one."""

    with pytest.raises(SettingError, match="already has 'top_k'"):
        preset("top_k", paper="none")(Impostor)


@pytest.mark.parametrize("wrong", [{"n_latents": 0}, {"n_latents": 4, "k": 0}, {"n_latents": 4, "k": 5}])
def test_impossible_sizes_are_refused(wrong):
    with pytest.raises(SettingError):
        TopK(**wrong)


def test_rates_and_windows_follow_the_size():
    small, large = TopK(320, k=8), TopK(2**14, k=32)
    assert large.rate == pytest.approx(2e-4) and small.rate > large.rate
    assert large.window == 500 * 2**14 // 32 and isinstance(small, Preset)
