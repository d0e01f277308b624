"""Row surgery moves everything that belongs to a latent, and nothing else."""

import pytest
import torch

from overtone.dictionaries.maintainers.base import Surgery
from overtone.dictionaries.presets.batch_top_k import BatchTopK
from overtone.dictionaries.presets.crosscoder import Crosscoder
from overtone.dictionaries.presets.gated import Gated
from overtone.dictionaries.presets.jump_relu import JumpReLU
from overtone.dictionaries.presets.multi_top_k import MultiTopK
from overtone.dictionaries.presets.p_annealing import PAnnealing
from overtone.dictionaries.presets.relu_l1 import ReluL1
from overtone.dictionaries.presets.top_k import TopK
from overtone.training.run import Run
from overtone.training.schedules import Schedule
from overtone.training.surgery import operate, per_latent

LATENTS = 16
PRESETS = [
    TopK(LATENTS, k=3), BatchTopK(LATENTS, k=3), ReluL1(LATENTS), Gated(LATENTS), JumpReLU(LATENTS),
    PAnnealing(LATENTS), MultiTopK(LATENTS, k=3), Crosscoder(LATENTS, k=3, views=2),
    Crosscoder(LATENTS, k=3, sparsity=0.2, views=2),
]  # fmt: skip


def started(preset, x, updates=4):
    """A training after some updates, in float64."""
    model = preset.build(LATENTS, torch.Generator().manual_seed(0)).double().train()  # as wide as it has latents
    run = Run(preset.name, preset, model, lr=1e-3, schedule=Schedule(), n_tokens=1000)
    run.begin(x)
    for _ in range(updates):
        run.advance(x)
    return run


@pytest.fixture
def rows(generator):
    return torch.randn(40, LATENTS, generator=generator, dtype=torch.float64) + 1


@pytest.mark.parametrize("preset", PRESETS, ids=lambda p: p.name)
def test_after_a_permutation_training_goes_on_as_before(preset, rows, generator):
    plain, moved = started(preset, rows), started(preset, rows)
    order = torch.randperm(LATENTS, generator=generator)
    operate(moved.model, moved.adam, moved.maintainers, Surgery(order=order))
    for _ in range(3):
        plain.advance(rows)
        moved.advance(rows)
        torch.testing.assert_close(moved.measure().loss, plain.measure().loss)
    before, after = plain.tensors(), moved.tensors()
    own = {f"model.{name}" for name in per_latent(moved.model)}
    own |= {f"moments.{kind}.{name}" for kind in ("mean", "square") for name in per_latent(moved.model)}
    own |= {"maintainer.0.idle_tokens"}
    for name, value in after.items():
        torch.testing.assert_close(value, before[name][order] if name in own else before[name], msg=name)


def test_latents_that_start_anew_have_the_given_rows_and_no_past(rows):
    run = started(TopK(LATENTS, k=3), rows)
    run.firing.state["idle_tokens"].fill_(20_000)
    run.firing.state["dead"] = torch.arange(LATENTS)
    fresh, new = torch.tensor([2, 5]), torch.eye(LATENTS, dtype=torch.float64)[:2]
    before = run.model.encoder.weight.detach().clone()
    names = {"encoder.weight": new, "decoder.weight": new}
    operate(run.model, run.adam, run.maintainers, Surgery(fresh=fresh, rows=names))
    assert torch.equal(run.model.decoder.weight[fresh], new) and torch.equal(run.model.encoder.weight[fresh], new)
    kept = torch.ones(LATENTS, dtype=torch.bool).index_fill(0, fresh, False)
    assert torch.equal(run.model.encoder.weight[kept], before[kept])
    assert not run.adam.means["encoder.weight"][fresh].any() and run.adam.means["encoder.weight"][kept].any()
    assert run.firing.dead.tolist() == kept.nonzero().view(-1).tolist()
