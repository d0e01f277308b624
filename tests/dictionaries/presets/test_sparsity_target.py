"""A steered price meets its target whatever the method and the data."""

import math
from types import SimpleNamespace

import pytest
import torch

from overtone.dictionaries.maintainers.sparsity_target import SparsityTarget
from overtone.dictionaries.presets.gated import Gated
from overtone.dictionaries.presets.p_annealing import PAnnealing
from overtone.dictionaries.presets.top_k import TopK
from overtone.training.fit import fit


@pytest.mark.parametrize("kind", [Gated, PAnnealing])
@pytest.mark.parametrize("target", [3.0, 8.0])
def test_the_number_of_active_latents_ends_near_its_target(kind, target, generator):
    x = torch.randn(3000, 16, generator=generator) @ torch.randn(16, 16, generator=generator)
    fitted = fit(kind(48, target_l0=target), x, n_tokens=100_000, batch_rows=250, lr=2e-3, quiet=True)
    found = float(fitted.dictionary.encode(x).counts().float().mean())
    assert found == pytest.approx(target, rel=0.08)


def steered(n_updates, answer, target=10.0):
    """(progress, factor, active latents) of each update of a dictionary whose number of active latents is
    answer(progress, logarithm of the factor)."""
    maintainer, found = SparsityTarget(target), []
    maintainer.begin(TopK(4, k=1).build(3, torch.Generator()))
    for update in range(n_updates):
        progress = update / n_updates
        active = answer(progress, float(maintainer.state["factor"].log()))
        maintainer.observe(None, SimpleNamespace(active=torch.tensor(1000 * active), rows=1000, progress=progress))
        found.append((progress, float(maintainer.state["factor"]), active))
    return found


@pytest.mark.parametrize("n_updates", [400, 4000])
def test_a_price_that_has_to_fall_all_the_time_is_followed_closer_than_by_its_surplus_alone(n_updates):
    """The price that 10 active latents take falls by a factor of exp(3) while the training goes on. A price that only
    moves with the surplus would stay 3 / GAIN = 15 % behind."""
    found = steered(n_updates, lambda progress, log: 10 * math.exp(-0.7 * (log + 3 * progress - 1)))
    assert 9.2 < found[-1][2] < 10.2
    still = steered(n_updates, lambda progress, log: 10 * math.exp(-0.7 * (log - 1)))
    assert still[-1][2] == pytest.approx(10.0, rel=0.02)


def test_a_price_without_an_answer_grows_by_updates_and_not_by_shares_of_the_training():
    """A dictionary answers after some updates. Where there are 80, a price that grows with the share of the training is
    ten thousand times too large before the first answer."""
    few, many = (steered(n, lambda progress, log: 100.0) for n in (80, 4000))
    assert max(factor for _, factor, _ in few) < 20 < max(factor for _, factor, _ in many)
