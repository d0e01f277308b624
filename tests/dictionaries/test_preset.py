"""Presets: what the decorator enrols, and the complete example of docs/adding/a-dictionary.md."""

import re
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch

from overtone.core import catalogue
from overtone.core.errors import SettingError
from overtone.dictionaries.preset import Preset, preset
from overtone.dictionaries.presets.top_k import TopK
from overtone.training.fit import fit

PAGE = Path(__file__).parents[2] / "docs" / "adding" / "a-dictionary.md"


@pytest.fixture
def scratch_catalogue(monkeypatch):
    """Whatever is enrolled during the test is forgotten after it."""
    known = catalogue.entries("dictionaries")
    monkeypatch.setitem(catalogue._ENTRIES, "dictionaries", dict(known))


def test_the_example_of_the_page_is_a_preset_that_contains_top_k(scratch_catalogue, generator):
    (code,) = re.findall(r"^```python\n(\"\"\"Multi-TopK.*?)^```", PAGE.read_text(), re.MULTILINE | re.DOTALL)
    namespace = {"__name__": "multi_top_k"}
    exec(compile(code, str(PAGE), "exec"), namespace)
    entry = catalogue.lookup("dictionaries", "multi_top_k")
    assert entry.facts["knobs"] == {"n_latents": None, "k": 32, "times": 4, "weight": 1 / 8}
    x = torch.randn(200, 8, generator=generator)

    def trained(settings):
        return fit(settings, x, n_tokens=2000, batch_rows=50, quiet=True).dictionary

    same, other = trained(entry.thing(16, k=3, weight=0.0)), trained(entry.thing(16, k=3))
    plain = trained(TopK(16, k=3, aux_weight=0.0)).state_dict()
    assert all(torch.equal(value, plain[name]) for name, value in same.state_dict().items())
    assert not torch.equal(other.atoms(), same.atoms())


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
