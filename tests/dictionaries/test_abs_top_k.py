"""AbsTopK: the operator, signed axes with half the latents, use of signs, a control, dead counts, the threshold."""

import math
from itertools import combinations

import pytest
import torch

from overtone.data.synthetic import plant
from overtone.dictionaries.choice import Chosen
from overtone.dictionaries.codes import Support
from overtone.dictionaries.maintainers.base import Observation
from overtone.dictionaries.maintainers.firing import Firing
from overtone.dictionaries.presets.abs_top_k import AbsTopK
from overtone.dictionaries.presets.top_k import TopK
from overtone.evaluate.reconstruction import fvu
from overtone.evaluate.recovery import planted_recovery
from overtone.training.fit import Job, fit_many

N, WIDTH, S = 48, 24, 3
TRUTH = plant(N, WIDTH, max_cosine=0.7, seed=0)


def test_the_code_is_the_best_k_sparse_approximation_of_the_pre_activations():
    """Card check 1, by brute force over all supports."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(20, 8, generator=generator)
    model = AbsTopK(8, k=3).build(8, generator)
    model.encoder.weight.data, model.encoder.bias.data = torch.eye(8), torch.zeros(8)
    codes = model.encode(x).dense()
    best = torch.full((20,), math.inf)
    for support in combinations(range(8), 3):
        outside = [i for i in range(8) if i not in support]
        best = torch.minimum(best, x[:, outside].square().sum(1))
    torch.testing.assert_close((x - codes).square().sum(1), best)


def rows(n, seed, signed):
    return TRUTH.sample(n, active=S, seed=seed, low=1.0, high=1.5, signed=signed)


@pytest.fixture(scope="module")
def signed():
    """name -> dictionary trained on rows whose coefficients have random signs."""
    presets = {"abs": AbsTopK(N, k=S), "batch": AbsTopK(N, k=S, scope="batch")}
    presets |= {"top": TopK(N, k=S), "wide": TopK(2 * N, k=S)}
    jobs = [Job(preset, lr=4e-3, name=name) for name, preset in presets.items()]
    fitted = fit_many(jobs, rows(20_000, 0, True).x, n_tokens=300_000, batch_rows=500, quiet=True)
    return {one.job.name: one.dictionary for one in fitted}


HELD_OUT = rows(6000, 1, True)


def share_antipodal(dictionary):
    """Share of atoms with a partner that points the other way, cos < -0.9."""
    atoms = dictionary.atoms()
    return float(((atoms @ atoms.T).amin(1) < -0.9).float().mean())


def test_signed_axes_need_half_the_latents(signed):
    """Card checks 2 and 3."""
    error = {name: fvu(HELD_OUT.x, model.reconstruct(HELD_OUT.x)) for name, model in signed.items()}
    found = {name: planted_recovery(model.atoms(), TRUTH.atoms, threshold=0.9).share for name, model in signed.items()}
    assert error["abs"] < 0.75 * error["top"] and error["batch"] < 0.75 * error["top"]
    assert error["abs"] < 1.05 * error["wide"], "TopK needs twice the width to catch up"
    assert found["abs"] > found["top"] + 0.2
    assert share_antipodal(signed["abs"]) < 0.05 and share_antipodal(signed["top"]) > 0.4


@pytest.mark.parametrize("name", ["abs", "batch"])
def test_both_signs_of_a_latent_are_used_and_mean_the_two_poles(signed, name):
    """Card check 4."""
    model = signed[name]
    codes, truth = model.encode(HELD_OUT.x).dense(), HELD_OUT.codes(N)
    cosines = model.atoms() @ TRUTH.atoms.T
    right = total = 0
    for axis in (cosines.abs().amax(0) > 0.9).nonzero().view(-1):
        latent = int(cosines[:, axis].abs().argmax())
        both = (codes[:, latent] != 0) & (truth[:, axis] != 0)
        assert (codes[:, latent] > 0).any() and (codes[:, latent] < 0).any()
        told = (codes[both, latent] * cosines[latent, axis]).sign()
        right += int((told == truth[both, axis].sign()).sum())
        total += int(both.sum())
    assert total > 1000 and right / total > 0.95


def test_where_coefficients_have_one_sign_it_gains_nothing():
    """Card check 5: a large gain here would mean that the baseline is broken."""
    jobs = [Job(AbsTopK(N, k=S), lr=4e-3), Job(TopK(N, k=S), lr=4e-3)]
    fitted = fit_many(jobs, rows(10_000, 0, False).x, n_tokens=150_000, batch_rows=500, quiet=True)
    x = rows(6000, 1, False).x
    ours, theirs = (fvu(x, one.dictionary.reconstruct(x)) for one in fitted)
    assert ours > 0.9 * theirs


def test_a_latent_that_fires_with_both_signs_is_alive():
    """Card check 6."""
    model = AbsTopK(4, k=1).build(6, torch.Generator().manual_seed(0))
    firing = Firing(window=10)
    firing.begin(model)
    values = torch.tensor([1.0, -1.0])
    support = Support.from_indices(torch.tensor([[2], [2]]), 4)
    fired = torch.zeros(4, dtype=torch.bool).index_fill(0, support.latents[values != 0], True)
    for _ in range(20):
        firing.observe(model, Observation(2, fired, Chosen(support, values), 0.0))
        firing.after_update(model)
    assert firing.dead.tolist() == [0, 1, 3]


def test_the_threshold_of_the_batch_form_is_two_sided_and_keeps_the_sparsity(signed):
    model = signed["batch"]
    assert model.capabilities.threshold_form and not signed["abs"].capabilities.threshold_form
    codes = model.encode(HELD_OUT.x)
    assert float(codes.counts().float().mean()) == pytest.approx(S, rel=0.05)
    theta = float(model.selection.theta / model.normaliser.unit)
    active = codes.values[codes.is_active]
    assert (active > 0).any() and (active < 0).any() and float(active.abs().min()) >= theta * (1 - 1e-5)
