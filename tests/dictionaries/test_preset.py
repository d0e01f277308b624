"""Presets: what the decorator enrols, and the settings that follow from the size."""

import math
from dataclasses import dataclass, fields
from types import NoneType
from typing import get_args, get_origin, get_type_hints

import numpy as np
import pytest
import torch

from overtone.core import catalogue
from overtone.core.errors import SettingError, ShapeError
from overtone.dictionaries.codes import Support
from overtone.dictionaries.kernels.dispatch import kernels_for
from overtone.dictionaries.preset import Preset, preset
from overtone.dictionaries.presets.batch_top_k import BatchTopK
from overtone.dictionaries.presets.crosscoder import Crosscoder
from overtone.dictionaries.presets.gated import Gated
from overtone.dictionaries.presets.jump_relu import JumpReLU
from overtone.dictionaries.presets.p_annealing import PAnnealing
from overtone.dictionaries.presets.relu_l1 import ReluL1
from overtone.dictionaries.presets.top_k import TopK
from overtone.dictionaries.presets.transcoder import Transcoder
from overtone.dictionaries.selectors.base import Rule


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


# --------------------------------------------------------------------------------------------------- knobs out of range
ENTRIES = catalogue.entries("dictionaries")
WRONG = {
    int: [-1, 4.5, math.nan, math.inf, "4", True],
    float: [math.nan, math.inf, -math.inf, -1, "4", True, 10**400],
    bool: ["yes", 1],
    str: [3, "none such"],
    int | float: [-1, 0, 0.0, math.nan, math.inf, "4", True, 10**400],
}


def hinted():
    """Preset, knob and the values that its type does not allow."""
    for name, entry in ENTRIES.items():
        hints = get_type_hints(entry.thing)
        for knob in (f.name for f in fields(entry.thing)):
            kinds = [kind for kind in get_args(hints[knob]) or (hints[knob],) if kind is not NoneType]
            kinds = [int | float] if kinds == [int, float] else kinds
            several = get_origin(hints[knob]) is tuple
            values = [(value,) for value in WRONG[int]] + [3] if several else WRONG[kinds[0]]
            values = values + ([] if NoneType in get_args(hints[knob]) else [None])
            values = values + [0] * (kinds == [int] and knob not in entry.thing.least)
            yield pytest.param(name, knob, values, id=f"{name}-{knob}")


@pytest.mark.parametrize(("name", "knob", "values"), list(hinted()))
def test_a_knob_of_another_type_or_range_is_refused_by_name(name, knob, values):
    kind = ENTRIES[name].thing
    for value in values:
        with pytest.raises(SettingError, match=knob) as told:
            kind(**{"n_latents": 16, **({"k": 4} if "k" in kind.__dataclass_fields__ else {}), knob: value})
        assert "\n" not in str(told.value)


@pytest.mark.parametrize("kind", [name for name in ENTRIES if "k" in ENTRIES[name].thing.__dataclass_fields__])
def test_a_fraction_of_active_latents_is_for_kinds_that_choose_over_the_batch(kind):
    thing = ENTRIES[kind].thing
    shared = get_type_hints(thing)["k"] == int | float
    if shared:
        asked = thing(16, k=1.4, **({"scope": "batch"} if "scope" in thing.__dataclass_fields__ else {}))
        assert asked.k == 1.4 and thing.from_dict(asked.to_dict()) == asked
    if not shared or "scope" in thing.__dataclass_fields__:
        with pytest.raises(SettingError, match=r"k=1.4\b.* whole number.*batch_top_k"):
            thing(16, k=1.4)


@pytest.mark.parametrize("target", [0, 17, math.nan])
def test_an_aim_lies_among_the_latents(target):
    for kind in (ReluL1, Transcoder, Gated, JumpReLU, PAnnealing):
        with pytest.raises(SettingError, match="target_l0="):
            kind(16, target_l0=target)
        assert kind(16, target_l0=16).target_l0 == 16


def test_numbers_of_other_libraries_and_lists_are_taken_as_pythons():
    made = TopK(np.int64(16), k=np.int32(4), aux_weight=np.float32(0.5))
    assert made == TopK(16, k=4, aux_weight=0.5) and type(made.k) is int and made.from_dict(made.to_dict()) == made
    shared = BatchTopK(16, k=np.float32(4))
    assert type(shared.k) is int and type(BatchTopK(16, k=np.float64(1.5)).k) is float
    assert Crosscoder(16, k=4, widths=[3, 4]).widths == (3, 4)


def test_a_new_preset_says_what_is_least_and_gets_the_rest_for_free():
    @dataclass(frozen=True)
    class Own(Preset):
        """A preset of one's own."""

        least = {"slope": -2}
        slope: float = 0.0
        depth: int | None = None

    assert Own(1, slope=-2).slope == -2 and Own(1, depth=None).depth is None
    for wrong, told in (
        ({"slope": -3}, "slope=-3: use a finite number of at least -2."),
        ({"depth": 0}, "depth=0: use a whole number of at least 1, or None."),
    ):
        with pytest.raises(SettingError, match=told):
            Own(1, **wrong)


def test_views_add_up_to_what_is_encoded():
    for wrong in ({"widths": (3, 4)}, {"views": 3}):
        with pytest.raises(SettingError, match="8 columns are not"):
            Crosscoder(16, k=4, **wrong).build(8, torch.Generator())


def test_what_is_no_array_and_no_code_is_refused_with_the_next_step():
    dictionary = TopK(16, k=4).build(8, torch.Generator())
    with pytest.raises(ShapeError, match="got a ndarray. Make it one with torch.as_tensor"):
        dictionary.checked(np.zeros((3, 8), dtype=np.float32))
    with pytest.raises(ShapeError, match="got a Tensor. .* SparseCodes.from_dense"):
        dictionary.decode(dictionary.encode(torch.randn(3, 8)).dense())


def test_a_support_without_places_has_rows_that_begin_nowhere():
    """One array of offsets was empty, and a kernel read past its end."""
    nothing = Support.from_indices(torch.zeros(3, 0, dtype=torch.int64), 8)
    assert nothing.row_starts.tolist() == [0, 0, 0]
    assert kernels_for("cpu").decode(torch.zeros(0), torch.ones(8, 2), nothing).tolist() == [[0, 0]] * 3
    with pytest.raises(SettingError, match="k=-1"):
        Rule(k=-1)
