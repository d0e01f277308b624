"""What tells the standard methods apart on planted data: shrinkage, budgets, dead latents."""

from statistics import median

import pytest
import torch

from overtone.data.synthetic import plant
from overtone.dictionaries.presets.batch_top_k import BatchTopK
from overtone.dictionaries.presets.gated import Gated
from overtone.dictionaries.presets.jump_relu import JumpReLU
from overtone.dictionaries.presets.relu_l1 import ReluL1
from overtone.dictionaries.presets.top_k import TopK
from overtone.training.fit import fit
from overtone.training.run import Run
from overtone.training.schedules import Schedule

PLANTED = plant(40, 64, max_cosine=0.3, seed=0)
# Card, check 5: ReLU+L1 below 0.95, all others within 2 %. Gated gets there slowly, where atoms hardly overlap; in
# these trainings it stays 2 to 4 % short, as medians over two sets of five truths 2.6 and 2.8 %.
CASES = [
    (ReluL1(64), 0.0, 0.95), (Gated(64), 0.96, 1.0), (JumpReLU(64), 0.98, 1.02), (TopK(64, k=3), 0.98, 1.02),
]  # fmt: skip


def slope(preset, seed, width=64, n_tokens=250_000):
    """Slope of found amplitudes on planted ones, over latents that found an atom."""
    planted = plant(40, width, max_cosine=0.3, seed=seed)
    rows, fresh = (planted.sample(4000, active=3, seed=10 * seed + i) for i in (0, 1))
    options = {"n_tokens": n_tokens, "batch_rows": 500, "lr": 4e-3, "quiet": True, "seed": seed}
    dictionary = fit(preset, rows.x, **options).dictionary
    best = (planted.atoms @ dictionary.atoms().T).max(1)
    truth = fresh.codes(40)
    found = (dictionary.encode(fresh.x).dense() * dictionary.atom_norms())[:, best.indices]
    where = (truth > 0) & (found > 0) & (best.values > 0.95)
    assert float((best.values > 0.95).float().mean()) >= 0.5
    return float((found[where] * truth[where]).sum() / truth[where].square().sum())


@pytest.mark.parametrize(("preset", "low", "high"), CASES, ids=lambda c: getattr(c, "name", ""))
def test_a_price_on_values_shrinks_them_and_a_price_on_their_number_does_not(preset, low, high):
    """On one truth; medians of five run with --slow."""
    assert low < slope(preset, 0) < high


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize(("preset", "low", "high"), CASES, ids=lambda c: getattr(c, "name", ""))
def test_shrinkage_as_medians_over_five_truths(preset, low, high):
    assert low < median(slope(preset, seed) for seed in range(5)) < high


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_gates_shrink_by_less_than_2_percent_where_atoms_hardly_overlap_and_training_is_long():
    assert 0.98 < median(slope(Gated(64), seed, width=96, n_tokens=800_000) for seed in range(5)) < 1.0


@pytest.mark.parametrize("batch_rows", [8, 64])
def test_the_threshold_of_a_batch_budget_keeps_it_on_fresh_rows(batch_rows):
    rows, fresh = (PLANTED.sample(4000, active=4, seed=seed, noise=0.05).x for seed in (0, 1))
    fitted = fit(BatchTopK(64, k=4), rows, n_tokens=800 * batch_rows, batch_rows=batch_rows, quiet=True)
    assert fitted.record[-1].l0 == 4.0
    assert float(fitted.dictionary.encode(fresh).counts().float().mean()) == pytest.approx(4.0, rel=0.05)


def test_the_auxiliary_loss_brings_dead_latents_back(generator):
    """Four times as many latents as atoms, half of them started where they never win."""
    x, shares = PLANTED.sample(4000, active=3, seed=0, noise=0.02).x, []
    for weight in (0.0, 1 / 32):
        preset = TopK(160, k=3, aux_weight=weight)
        model = preset.build(64, torch.Generator().manual_seed(0)).train()
        model.encoder.weight.data[::2] *= 0.3
        run = Run("dead", preset, model, lr=4e-3, schedule=Schedule(), n_tokens=100_000)
        run.firing.window = 4000
        run.begin(x)
        for i in range(200):
            run.advance(x[(i % 8) * 500 :][:500])
        shares.append(float((model.eval().encode(x).frequencies() == 0).float().mean()))
    assert shares[0] > 0.5 and shares[1] < shares[0] - 0.1, shares
