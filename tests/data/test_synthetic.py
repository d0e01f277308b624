"""Planted dictionaries keep what they promise: coherence, sparsity, range, noise; the control only breaks structure."""

import pytest
import torch

from overtone.core.errors import DataError, SettingError
from overtone.data.synthetic import plant, shuffled_features


@pytest.mark.parametrize(("n_atoms", "width", "bound"), [(96, 64, 0.5), (48, 16, 0.45), (1, 4, 0.1), (8, 8, 0.01)])
def test_atoms_are_unit_rows_below_the_coherence_bound(n_atoms, width, bound):
    planted = plant(n_atoms, width, max_cosine=bound, seed=1)
    assert planted.atoms.shape == (n_atoms, width)
    torch.testing.assert_close(planted.atoms.norm(dim=1), torch.ones(n_atoms))
    assert planted.coherence <= bound


def test_a_coherence_below_the_welch_bound_is_refused_with_the_bound():
    with pytest.raises(SettingError, match=r"cannot all have .cos. <= 0.1.*0.262"):
        plant(64, 12, max_cosine=0.1, seed=0)


def test_without_noise_rows_are_their_codes_times_the_atoms():
    planted = plant(20, 16, max_cosine=0.7, seed=0)
    made = planted.sample(50, active=3, seed=2)
    rebuilt = (made.values[..., None] * planted.atoms[made.indices]).sum(1)
    torch.testing.assert_close(made.x, rebuilt)


def test_codes_have_the_declared_number_of_different_atoms_in_the_declared_range():
    made = plant(20, 16, max_cosine=0.7, seed=0).sample(4000, active=4, seed=2, low=0.5, high=3.0)
    assert bool((made.indices.diff(dim=1) > 0).all())
    assert made.values.min() >= 0.5 and made.values.max() <= 3.0
    assert abs(float(made.values.mean()) - 1.75) < 0.05
    used = made.indices.flatten().bincount(minlength=20) / len(made.x)
    assert bool(((used - 4 / 20).abs() < 0.03).all())


def test_signed_coefficients_are_positive_half_of_the_time():
    values = plant(20, 16, max_cosine=0.7, seed=0).sample(4000, active=2, seed=2, signed=True).values
    assert abs(float((values > 0).float().mean()) - 0.5) < 0.03
    assert float(values.abs().min()) >= 1


def test_noise_has_the_declared_standard_deviation():
    planted = plant(20, 16, max_cosine=0.7, seed=0)
    clean, noisy = (planted.sample(4000, active=2, seed=5, noise=n).x for n in (0.0, 0.2))
    assert abs(float((noisy - clean).std()) - 0.2) < 0.005


def test_a_seed_fixes_the_rows_and_global_randomness_is_left_alone():
    planted = plant(20, 16, max_cosine=0.7, seed=0)
    state = torch.random.get_rng_state()
    one, two, other = (planted.sample(8, active=2, seed=s).x for s in (1, 1, 2))
    assert torch.equal(one, two) and not torch.equal(one, other)
    assert torch.equal(state, torch.random.get_rng_state())


def test_shuffled_features_keep_each_coordinate_and_lose_their_covariance():
    x = plant(20, 16, max_cosine=0.7, seed=0).sample(4000, active=2, seed=2).x
    shuffled = shuffled_features(x, seed=0)
    assert torch.equal(shuffled.sort(0).values, x.sort(0).values)
    off = torch.corrcoef(shuffled.T) - torch.eye(16)
    assert float(off.abs().max()) < 0.1 < float((torch.corrcoef(x.T) - torch.eye(16)).abs().max())


@pytest.mark.parametrize("wrong", [{"active": 0}, {"active": 21}, {"noise": -1.0}, {"low": 2.0, "high": 1.0}])
def test_samples_out_of_range_are_refused(wrong):
    with pytest.raises(SettingError, match="use rows >= 1"):
        plant(20, 16, max_cosine=0.7, seed=0).sample(5, **{"active": 2, "seed": 0, **wrong})


def test_one_row_cannot_be_shuffled():
    with pytest.raises(DataError, match="two rows"):
        shuffled_features(torch.zeros(1, 3), 0)
