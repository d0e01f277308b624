"""Transcoders: other states out than in, and a straight way that takes what is linear."""

import pytest
import torch

from overtone.core.errors import DataError, SettingError
from overtone.core.sites import Site
from overtone.dictionaries.codes import SparseCodes
from overtone.dictionaries.presets.skip_transcoder import SkipTranscoder
from overtone.dictionaries.presets.transcoder import Transcoder
from overtone.dictionaries.storage import load_dictionary, save_dictionary
from overtone.training.fit import fit

X, Y = Site("mlp_in", 0), Site("mlp_out", 0)
PRESETS = [Transcoder(32), SkipTranscoder(32, k=4), SkipTranscoder(32, k=4, skip=False)]


def trained(preset, x, y, **options):
    settings = {"n_tokens": 40_000, "batch_rows": 200, "quiet": True, "lr": 4e-3, **options}
    return fit(preset, {X: x, Y: y}, site=X, target=Y, **settings).dictionary


def share(part, whole):
    return float(part.square().sum() / (whole - whole.mean(0)).square().sum())


@pytest.mark.parametrize("preset", PRESETS, ids=lambda p: f"{p.name}-{getattr(p, 'skip', '')}")
def test_it_predicts_states_of_another_width_and_folds_both_scales(preset, generator, tmp_path):
    x = 30 * torch.randn(2000, 8, generator=generator) + 5
    y = 0.01 * (x @ torch.randn(8, 5, generator=generator)).abs() + 1
    dictionary = trained(preset, x, y)
    assert (dictionary.width, dictionary.width_out, dictionary.atoms().shape) == (8, 5, (32, 5))
    assert share(dictionary.reconstruct(x) - y, y) < 0.2
    folded = dictionary.folded()
    torch.testing.assert_close(folded.encode(x).dense(), dictionary.encode(x).dense(), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(folded.reconstruct(x), dictionary.reconstruct(x), rtol=1e-4, atol=1e-4)
    loaded = load_dictionary(save_dictionary(dictionary, tmp_path / "made"))
    assert torch.equal(loaded.reconstruct(x), dictionary.reconstruct(x))


def test_on_a_linear_map_the_straight_way_explains_all_and_the_code_nothing(generator):
    x = torch.randn(4000, 8, generator=generator)
    y = x @ torch.randn(8, 6, generator=generator) + 2
    dictionary = trained(SkipTranscoder(32, k=4), x, y, n_tokens=100_000)
    nothing = SparseCodes(torch.zeros(len(x), 1), torch.zeros(len(x), 1, dtype=torch.int64), 32)
    whole, straight = dictionary.reconstruct(x), dictionary.decode(nothing, x)
    assert share(straight - y, y) < 0.02, "alone"
    assert share(whole - straight, y) < 0.02, "the code"


def test_without_the_straight_way_the_code_must_do_the_work(generator):
    x = torch.randn(2000, 8, generator=generator)
    y = x @ torch.randn(8, 6, generator=generator)
    with_, without = (trained(SkipTranscoder(32, k=2, skip=s), x, y) for s in (True, False))
    assert share(with_.reconstruct(x) - y, y) < 0.2 * share(without.reconstruct(x) - y, y)


def test_what_is_missing_is_named(generator):
    x = torch.randn(50, 8, generator=generator)
    with pytest.raises(SettingError, match="name it"):
        fit(Transcoder(16), x, n_tokens=50, quiet=True)
    dictionary = trained(SkipTranscoder(16, k=2), x, x, n_tokens=200)
    with pytest.raises(DataError, match=r"decode\(codes, x\)"):
        dictionary.decode(dictionary.encode(x))
