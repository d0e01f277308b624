"""Dictionaries of steps: trained on `fit` alone, one per layer, reused while what they learned from is the same."""

import shutil

import pytest
import torch

from overtone.core.errors import SettingError
from overtone.dictionaries.storage import load_dictionary
from overtone.discover.decompose import chosen_preset, decompose
from overtone.discover.material import FIT
from overtone.discover.run import Run
from overtone.discover.settings import DictionarySettings

TRAINED = DictionarySettings(preset="top_k", epochs=2)


def made(found, folder, **changes):
    run = Run(folder, resume=True)
    return run, decompose(run, found.material, found.settings, TRAINED.replaced(**changes), bases=True)


@pytest.fixture(scope="module")
def first(found, tmp_path_factory):
    folder = tmp_path_factory.mktemp("dictionaries")
    return folder, *made(found, folder)


def test_every_layer_has_its_dictionary_and_the_bases_it_must_beat(found, first):
    _, _, one = first
    for part in (one.dictionaries, one.random, one.axes):
        assert tuple(part) == found.material.sites
    for site in found.material.sites:
        assert one.dictionaries[site].n_latents == one.random[site].n_latents == 16
        assert one.axes[site].n_latents == 32
        axes = one.axes[site].atoms()
        torch.testing.assert_close(axes @ axes.T, torch.eye(32), atol=1e-4, rtol=0)


def test_codes_are_those_of_the_dictionary_for_all_rows(first):
    _, _, one = first
    site = next(iter(one.dictionaries))
    assert torch.equal(one.codes(site).dense(), one.dictionaries[site].encode(one.rows.x[site]).dense())


def test_a_second_run_reuses_them(found, first):
    folder, run, one = first
    again_run, again = made(found, folder)
    assert run.reused == [] and again_run.reused == ["dictionaries top_k mean", "dictionaries random_directions mean"]
    for site, dictionary in one.dictionaries.items():
        assert torch.equal(dictionary.atoms(), again.dictionaries[site].atoms())


@pytest.mark.parametrize("changes", [{"epochs": 3}, {"active": 2}, {"expansion": 1.0}])
def test_other_settings_train_others(found, first, changes):
    assert made(found, first[0], **changes)[0].reused == []


def test_one_lost_layer_is_trained_again_to_the_same_end(found, first):
    folder, _, one = first
    site = found.material.sites[1]
    atoms = one.dictionaries[site].atoms()
    stored = (folder / "parts").glob(f"top_k-mean-{site}-*")
    (lost,) = [path for path in stored if torch.equal(load_dictionary(path).atoms(), atoms)]
    shutil.rmtree(lost)
    run, again = made(found, folder)
    assert torch.equal(again.dictionaries[site].atoms(), atoms)
    assert run.reused == ["dictionaries random_directions mean"]


def test_only_fit_rows_are_learned_from(found, first):
    """Principal axes show it: they are those of the fit rows, not of all rows."""
    _, _, one = first
    site = found.material.sites[0]
    x = one.rows.x[site][one.rows.index(FIT)].double()
    _, _, axes = torch.linalg.svd(x - x.mean(0), full_matrices=False)
    agreement = (one.axes[site].atoms()[:3].double() * axes[:3]).sum(1).abs()
    torch.testing.assert_close(agreement, torch.ones(3, dtype=torch.float64), atol=1e-4, rtol=0)


def test_a_preset_takes_its_size_from_the_settings():
    preset = chosen_preset("top_k", 32, DictionarySettings(preset="top_k", expansion=0.5, active=40))
    assert preset.n_latents == 16 and preset.k == 16  # no more active than there are
    with pytest.raises(SettingError, match="Did you mean"):
        chosen_preset("top-k", 32, DictionarySettings())
    with pytest.raises(SettingError, match="several sites"):
        chosen_preset("crosscoder", 32, DictionarySettings())
