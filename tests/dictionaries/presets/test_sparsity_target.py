"""A steered price meets its target whatever the method and the data."""

import pytest
import torch

from overtone.dictionaries.presets.gated import Gated
from overtone.dictionaries.presets.p_annealing import PAnnealing
from overtone.training.fit import fit


@pytest.mark.parametrize("kind", [Gated, PAnnealing])
@pytest.mark.parametrize("target", [3.0, 8.0])
def test_the_number_of_active_latents_ends_near_its_target(kind, target, generator):
    x = torch.randn(3000, 16, generator=generator) @ torch.randn(16, 16, generator=generator)
    fitted = fit(kind(48, target_l0=target), x, n_tokens=100_000, batch_rows=250, lr=2e-3, quiet=True)
    found = float(fitted.dictionary.encode(x).counts().float().mean())
    assert found == pytest.approx(target, rel=0.15)
