"""The laws of training in several processes, over the catalogue: splitting rows or latents changes nothing.

Among what must not change is all that maintainers count: the statistics of parts, merged, are those of the whole.
"""

from copy import deepcopy

import pytest
import torch

from overtone.core.catalogue import entries
from overtone.core.errors import CapabilityError
from overtone.core.seeds import torch_generator
from overtone.dictionaries.autoencoder import Autoencoder
from overtone.training.distributed.join import SPLITS
from overtone.training.distributed.share import Alone
from overtone.training.run import Run
from overtone.training.schedules import Schedule
from worlds import together

ENTRIES = {name: entry for name, entry in entries("dictionaries").items() if not entry.thing.whole}
WIDTH, LATENTS, K, ROWS, STEPS = 8, 12, 2, 25, 12
# May be spread by latents, whatever changes:
ALWAYS = {"top_k", "batch_top_k", "abs_top_k", "relu_l1", "gated", "jump_relu", "p_annealing", "random_directions"}


def rows_for(preset) -> list[tuple]:
    """Batches of correlated states, with targets and gradients where the preset wants them; float64, so that a split
    changes no choice by rounding."""
    generator = torch.Generator().manual_seed(2)
    mix = torch.randn(WIDTH, WIDTH, generator=generator, dtype=torch.float64)

    def batch():
        x = torch.randn(ROWS, WIDTH, generator=generator, dtype=torch.float64) @ mix + 1
        y = x @ mix if "y" in preset.needs else None
        return x, y, x.cos() if "g" in preset.needs else None

    return [batch() for _ in range(STEPS)]


def trained(preset, share) -> tuple[Run, dict[str, torch.Tensor]]:
    """A run after some steps in which latents count as dead early, and all its tensors as one process has them."""
    dictionary = preset.build(WIDTH, torch_generator(0, "dictionary"))
    if not isinstance(dictionary, Autoencoder):
        pytest.skip("not trained by gradient steps of the shared skeleton")

    def shared(model):
        mine = share(model.double().train())
        return mine

    run = Run(preset.name, preset, dictionary, lr=3e-2, schedule=Schedule(), n_tokens=2 * STEPS * ROWS, share=shared)
    run.firing.window, run.adam.clip = 3 * ROWS, 0.05  # latents die, and the gradients' norm is bounded
    batches = rows_for(preset)
    run.begin(*(None if part is None else part for part in batches[0][:2]))
    for batch in batches:
        run.advance(*batch)
    run.measure()
    return run, run.tensors()


def agree(found: dict[str, torch.Tensor], expected: dict[str, torch.Tensor]) -> None:
    assert found.keys() == expected.keys()
    for name in expected:
        torch.testing.assert_close(found[name], expected[name], rtol=1e-6, atol=1e-8, msg=lambda m, n=name: f"{n}: {m}")


@pytest.mark.parametrize("split", list(SPLITS))
@pytest.mark.parametrize("name", list(ENTRIES))
def test_sharing_a_training_changes_nothing(name, split):
    preset = ENTRIES[name].thing.example(n_latents=LATENTS, k=K)
    alone, expected = trained(preset, Alone)

    def work(world):
        run, tensors = trained(preset, lambda model: SPLITS[split](model, world))
        return run, tensors, deepcopy(run.share.dictionary())

    try:
        found = together(2, work)
    except CapabilityError as error:
        assert split == "latents" and name not in ALWAYS and "split='rows'" in str(error)
        return
    for run, tensors, dictionary in found:
        agree(tensors, expected)
        agree(dictionary.state_dict(), alone.model.state_dict())
        assert run.records[-1].l0 == alone.records[-1].l0
        assert run.records[-1].share_dead == pytest.approx(alone.records[-1].share_dead)
        assert run.records[-1].loss == pytest.approx(alone.records[-1].loss)


@pytest.mark.parametrize("split", list(SPLITS))
def test_a_saved_half_is_taken_up_again_by_three(split):
    """Two save, three load, and have the same."""
    preset = ENTRIES["batch_top_k"].thing.example(n_latents=LATENTS, k=K)
    _, saved = trained(preset, Alone)

    def work(world):
        run, _ = trained(preset, lambda model: SPLITS[split](model, world))
        run.load({name: tensor.clone() for name, tensor in saved.items()}, 100, [])
        return run.tensors()

    for tensors in together(3, work):
        agree(tensors, saved)


def test_a_batch_with_fewer_rows_than_workers_is_everyones():
    preset = ENTRIES["top_k"].thing.example(n_latents=LATENTS, k=K)

    def work(world):
        run, _ = trained(preset, lambda model: SPLITS["rows"](model, world) if world else Alone(model))
        run.advance(rows_for(preset)[0][0][:2])
        return run.tensors()

    for tensors in together(3, work):
        agree(tensors, work(None))
