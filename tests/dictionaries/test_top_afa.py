"""top-AFA in training: the term is what it says, and L0 follows its weight (card check 5, in the other direction)."""

import pytest
import torch

from overtone.core.errors import SettingError
from overtone.data.synthetic import plant
from overtone.dictionaries.objectives.norm_match import NormMatch
from overtone.dictionaries.presets.top_afa import TopAFA
from overtone.evaluate.reconstruction import l0
from overtone.training.fit import Job, fit_many
from overtone.training.step import Given, forward

NONE = torch.zeros(0, dtype=torch.int64)


@pytest.mark.parametrize("everything", [False, True])
def test_the_term_is_the_gap_between_the_lengths_of_code_and_state(everything):
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(30, 6, generator=generator, dtype=torch.float64) + 1
    model = TopAFA(16).build(6, generator).double().train()
    model.start(x)
    step = forward(model, Given(x, NONE, 0.5, all_latents=everything))
    assert step.dense == everything
    codes, centred = model.encode(x).dense() * model.outward.unit, model.normaliser(x) - model.centre()
    by_hand = (codes.norm(dim=1) - centred.norm(dim=1)).square().mean() / model.spread
    found = NormMatch(0.5)(step)
    torch.testing.assert_close(found, 0.5 * by_hand)
    found.backward()
    assert torch.isfinite(model.encoder.weight.grad).all() and model.encoder.weight.grad.abs().sum() > 0


def test_l0_is_set_by_the_weight_of_the_match():
    """On planted rows it falls as the weight grows, by far more than noise; the figures of the paper's repository, on
    real states, rise. Either way the weight is a price: there is no sparsity without one."""
    x = plant(48, 32, max_cosine=0.5, seed=0).sample(6000, active=3, seed=0).x
    jobs = [Job(TopAFA(48, match=weight), lr=4e-3) for weight in (0.03, 3.0)]
    fitted = fit_many(jobs, x, n_tokens=150_000, batch_rows=500, quiet=True)
    many, few = (l0(one.dictionary.encode(x)) for one in fitted)
    assert many > 1.15 * few


def test_a_negative_weight_is_refused():
    with pytest.raises(SettingError, match="match=-1.0: use a finite number of at least 0"):
        TopAFA(8, match=-1.0)
