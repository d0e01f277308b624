"""Planted dictionaries keep what they promise: coherence, sparsity, range, noise; the control only breaks structure."""

import pytest
import torch

from overtone.core.errors import DataError, SettingError
from overtone.data.synthetic import plant, plant_neurons, plant_pairs, shuffled_features


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


def test_rows_of_mixed_sparsity_have_one_of_the_counts_and_every_atom_its_share():
    planted = plant(20, 16, max_cosine=0.7, seed=0)
    made = planted.sample(6000, active=(2, 8), seed=3)
    codes = made.codes(20)
    counts = (codes != 0).sum(1)
    assert set(counts.tolist()) == {2, 8} and abs(float(counts.float().mean()) - 5) < 0.15
    assert bool((((codes != 0).float().mean(0) - 0.25).abs() < 0.03).all())
    torch.testing.assert_close(made.x, codes @ planted.atoms)


def test_a_bound_pair_adds_its_vector_by_the_product_of_its_coefficients():
    planted = plant_pairs(12, 10, 5, strength=1.5, max_cosine=0.8, seed=0)
    assert len(planted.pairs.unique(dim=0)) == 5 and bool((planted.pairs[:, 0] < planted.pairs[:, 1]).all())
    torch.testing.assert_close(planted.vectors.norm(dim=1), torch.full((5,), 1.5))
    made = planted.sample(3000, active=3, together=0.5, seed=1)
    z = made.codes(12)
    extra = made.x - z @ planted.atoms
    met = z[:, planted.pairs[:, 0]] * z[:, planted.pairs[:, 1]]
    torch.testing.assert_close(extra, met @ planted.vectors)
    alone = (met > 0).sum(1) == 0
    assert float(extra[alone].abs().max()) < 1e-5
    assert 0.5 < float((~alone).float().mean()) < 0.7, "half of the rows by design, some more by chance"
    assert bool(((z > 0).sum(1) == 3).all())


def test_without_pairs_binding_rows_are_plain():
    planted = plant_pairs(12, 10, 0, strength=1.0, max_cosine=0.8, seed=0)
    made = planted.sample(10, active=2, together=0.5, seed=1)
    torch.testing.assert_close(made.x, made.codes(12) @ planted.atoms)


def test_neuron_atoms_are_sparse_positive_unit_rows():
    atoms = plant_neurons(10, 200, 10, seed=0).atoms
    assert bool(((atoms != 0).sum(1) == 10).all()) and float(atoms.min()) >= 0
    torch.testing.assert_close(atoms.norm(dim=1), torch.ones(10))


@pytest.mark.parametrize(
    "make",
    [
        lambda: plant_pairs(4, 4, 7, strength=1.0, max_cosine=0.9, seed=0),
        lambda: plant_pairs(4, 4, 2, strength=1.0, max_cosine=0.9, seed=0).sample(5, active=1, together=0.5, seed=0),
        lambda: plant_neurons(3, 4, 5, seed=0),
        lambda: plant(4, 4, max_cosine=0.9, seed=0).sample(5, active=(1, 5), seed=0),
        lambda: plant(4, 4, max_cosine=0.9, seed=0).sample(5, active=(), seed=0),
    ],
)
def test_planted_structure_out_of_range_is_refused(make):
    with pytest.raises(SettingError, match=r"use|make"):
        make()


def test_mixed_rows_have_the_declared_sparsities_and_frequencies():
    planted = plant(30, 24, max_cosine=0.7, seed=0)
    made = planted.mixed(20_000, shares={1: 0.25, 4: 0.75}, exponent=1.0, seed=3)
    active = made.values > 0
    assert set(active.sum(1).tolist()) == {1, 4} and float((active.sum(1) == 4).float().mean()) == pytest.approx(
        0.75, abs=0.02
    )
    torch.testing.assert_close(made.x, (made.values[..., None] * planted.atoms[made.indices]).sum(1))
    single = made.indices[active.sum(1) == 1, 0].bincount(minlength=30).double()
    expected = (1 / torch.arange(1, 31)).double()
    torch.testing.assert_close(single / single.sum(), expected / expected.sum(), rtol=0.25, atol=2e-3)
    assert all(len(set(row.tolist())) == 4 for row in made.indices[:200])
    with pytest.raises(SettingError, match="active atoms in"):
        planted.mixed(10, shares={31: 1.0}, exponent=0.0, seed=0)
