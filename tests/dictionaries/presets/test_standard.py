"""What tells the standard methods apart on planted data: shrinkage, budgets, dead latents."""

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
CASES = [
    (ReluL1(64), 0.0, 0.95), (Gated(64), 0.97, 1.03), (JumpReLU(64), 0.98, 1.02), (TopK(64, k=3), 0.98, 1.02),
]  # fmt: skip


@pytest.mark.parametrize(("preset", "low", "high"), CASES, ids=lambda c: getattr(c, "name", ""))
def test_a_price_on_values_shrinks_them_and_a_price_on_their_number_does_not(preset, low, high):
    """Slope of found amplitudes on planted ones, over latents that found an atom. Gated stays just short of 2 %."""
    rows, fresh = (PLANTED.sample(4000, active=3, seed=seed) for seed in (0, 1))
    dictionary = fit(preset, rows.x, n_tokens=250_000, batch_rows=500, lr=4e-3, quiet=True).dictionary
    best = (PLANTED.atoms @ dictionary.atoms().T).max(1)
    truth = torch.zeros(len(fresh.x), 40).scatter(1, fresh.indices, fresh.values)
    found = (dictionary.encode(fresh.x).dense() * dictionary.atom_norms())[:, best.indices]
    where = (truth > 0) & (found > 0) & (best.values > 0.95)
    assert float((best.values > 0.95).float().mean()) >= 0.5
    slope = float((found[where] * truth[where]).sum() / truth[where].square().sum())
    assert low < slope < high


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
