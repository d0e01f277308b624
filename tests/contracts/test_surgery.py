"""Row surgery over the catalogue: a training whose latents change places goes on as if nothing had happened."""

import pytest
import torch

from overtone.core.catalogue import entries
from overtone.core.seeds import torch_generator
from overtone.dictionaries.autoencoder import Autoencoder
from overtone.dictionaries.maintainers.base import Surgery
from overtone.training.run import Run
from overtone.training.schedules import Schedule
from overtone.training.surgery import operate, per_latent

ENTRIES = {name: entry for name, entry in entries("dictionaries").items() if not entry.thing.whole}
WIDTH, LATENTS, K, ROWS, STEPS = 8, 12, 2, 40, 8
ORDER_MATTERS = {
    "feature_choice": "budgets of a fraction of a row are rounded by place",
    "matryoshka": "its prefixes are nested: a latent's place says to how many of them it belongs",
    "v_sae": "its noise is drawn by place",
}


def started(preset) -> tuple[Run, tuple]:
    """A training after some updates, in float64, with latents that count as dead; and the batch it goes on with."""
    generator = torch.Generator().manual_seed(2)
    mix = torch.randn(WIDTH, WIDTH, generator=generator, dtype=torch.float64)
    x = torch.randn(ROWS, WIDTH, generator=generator, dtype=torch.float64) @ mix + 1
    batch = x, x @ mix if "y" in preset.needs else None, x.cos() if "g" in preset.needs else None
    model = preset.build(WIDTH, torch_generator(0, "dictionary"))
    if not isinstance(model, Autoencoder):
        pytest.skip("not trained by gradient steps of the shared skeleton")
    run = Run(preset.name, preset, model.double().train(), lr=1e-2, schedule=Schedule(), n_tokens=4 * STEPS * ROWS)
    run.firing.window = 3 * ROWS
    run.begin(*batch[:2])
    for _ in range(STEPS):
        run.advance(*batch)
    return run, batch


def names_by_latent(run: Run) -> set[str]:
    """Names of a run's tensors that have latents first."""
    own = per_latent(run.model)
    names = {f"{kind}.{name}" for kind in ("model", "moments.mean", "moments.square") for name in own}
    return names | {f"maintainer.{i}.{key}" for i, m in enumerate(run.maintainers) for key in m.per_latent}


@pytest.mark.parametrize("name", list(ENTRIES))
def test_permuted_latents_train_on_as_before(name):
    preset = ENTRIES[name].thing.example(n_latents=LATENTS, k=K)
    (plain, batch), (moved, _) = started(preset), started(preset)
    order = torch.randperm(LATENTS, generator=torch.Generator().manual_seed(0))
    operate(moved.model, moved.adam, moved.maintainers, Surgery(order=order))
    losses = []
    for _ in range(3):
        plain.advance(*batch)
        moved.advance(*batch)
        losses.append((moved.measure().loss, plain.measure().loss))
    if name in ORDER_MATTERS:
        assert any(found != pytest.approx(expected, rel=1e-9) for found, expected in losses), ORDER_MATTERS[name]
        return
    for found, expected in losses:
        assert found == pytest.approx(expected, rel=1e-9)
    before, after = plain.tensors(), moved.tensors()
    own = names_by_latent(moved) & after.keys()  # buffers and frozen parameters have no moments
    lists = {f"maintainer.{i}.{key}" for i, m in enumerate(moved.maintainers) for key in m.lists}
    for tensor in own:
        torch.testing.assert_close(after[tensor], before[tensor][order], msg=lambda m, n=tensor: f"{n}: {m}")
    for tensor in lists:
        assert sorted(order[after[tensor]].tolist()) == sorted(before[tensor].tolist())
    for tensor in after.keys() - own - lists:
        torch.testing.assert_close(after[tensor], before[tensor], msg=lambda m, n=tensor: f"{n}: {m}")
