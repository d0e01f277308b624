"""Row surgery over the catalogue: a training whose latents change places goes on as if nothing had happened."""

import pytest
import torch

from overtone.core.catalogue import entries
from overtone.core.seeds import torch_generator
from overtone.dictionaries.autoencoder import Autoencoder
from overtone.dictionaries.maintainers.base import Surgery
from overtone.dictionaries.selectors.columns import Columns
from overtone.training.run import Run
from overtone.training.schedules import Schedule
from overtone.training.surgery import operate, per_latent

ENTRIES = {name: entry for name, entry in entries("dictionaries").items() if not entry.thing.whole}
WIDTH, LATENTS, K, ROWS, STEPS = 8, 12, 2, 40, 8
ORDER_MATTERS = {
    "feature_choice": "budgets of a fraction of a row are rounded by place, and equal demands ranked by it",
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


def permuted(name) -> tuple[Run, Run, torch.Tensor, tuple]:
    """A training as it was and after its latents changed places, and the order they have now."""
    preset = ENTRIES[name].thing.example(n_latents=LATENTS, k=K)
    (plain, batch), (moved, _) = started(preset), started(preset)
    order = torch.randperm(LATENTS, generator=torch.Generator().manual_seed(0))
    operate(moved.model, moved.adam, moved.maintainers, Surgery(order=order))
    return plain, moved, order, batch


def losses_of(plain: Run, moved: Run, batch) -> list[tuple[float, float]]:
    """The losses of the next three updates of both."""
    found = []
    for _ in range(3):
        plain.advance(*batch)
        moved.advance(*batch)
        found.append((moved.measure().loss, plain.measure().loss))
    return found


@pytest.mark.parametrize("name", list(ENTRIES))
def test_all_that_belongs_to_a_latent_moves_with_it(name):
    plain, moved, order, _ = permuted(name)
    before, after = plain.tensors(), moved.tensors()
    assert (order != torch.arange(LATENTS)).any()
    for tensor in names_by_latent(moved) & after.keys():
        assert torch.equal(after[tensor], before[tensor][order]), tensor


@pytest.mark.parametrize("name", list(ORDER_MATTERS))
def test_where_places_matter_the_training_goes_on_otherwise(name):
    plain, moved, _, batch = permuted(name)
    losses = losses_of(plain, moved, batch)
    assert any(found != pytest.approx(expected, rel=1e-9) for found, expected in losses), ORDER_MATTERS[name]


def go_by_old_places(run: Run, order: torch.Tensor) -> None:
    """Have noise and budgets drawn and rounded by the places that latents had before."""
    value, selection = run.model.value, run.model.selection
    if value.draws:
        sides = value.sides
        value.sides = lambda first, n_rows, n: {"noise": sides(first, n_rows, n)["noise"][:, order]}
    if isinstance(selection, Columns):
        grants = selection.grants

        def of_old(n_rows):
            now = selection.share.clone()
            selection.share.copy_(now[order.argsort()])
            granted = grants(n_rows)[order]
            selection.share.copy_(now)
            return granted

        selection.grants = of_old


@pytest.mark.parametrize("name", [name for name in ENTRIES if name != "matryoshka"])
def test_permuted_latents_train_on_as_before(name):
    plain, moved, order, batch = permuted(name)
    go_by_old_places(moved, order)
    for found, expected in losses_of(plain, moved, batch):
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
