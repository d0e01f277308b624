"""A training that is taken up from its saved tensors goes on bit for bit, for every preset that is trained by steps."""

import pytest
import torch

from overtone.core.catalogue import entries
from overtone.dictionaries.presets.gated import Gated
from overtone.dictionaries.presets.jump_relu import JumpReLU
from overtone.dictionaries.presets.matryoshka import Matryoshka
from overtone.dictionaries.presets.p_annealing import PAnnealing
from overtone.training.run import Run
from overtone.training.schedules import Schedule

LATENTS, WIDTH, ROWS, STEPS = 16, 8, 40, 12
STEPPED = [e.thing.example(n_latents=LATENTS, k=3) for e in entries("dictionaries").values() if not e.thing.whole]
OTHERS = [
    Gated(LATENTS, target_l0=3.0), PAnnealing(LATENTS, start=0.1), JumpReLU(LATENTS, target_l0=3.0, revive=0.1),
    Matryoshka(LATENTS, k=3, sampled=True),
]  # fmt: skip


def begun(preset, beside):
    model = preset.build(WIDTH, torch.Generator().manual_seed(0)).train()
    run = Run(preset.name, preset, model, lr=1e-3, schedule=Schedule(), n_tokens=ROWS * STEPS)
    run.firing.window = 2 * ROWS
    run.begin(beside["x"][:ROWS], beside["y"][:ROWS] if "y" in preset.needs else None)
    return run


def go_on(run, preset, beside, steps):
    for step in steps:
        place = slice(step * ROWS, (step + 1) * ROWS)
        run.advance(beside["x"][place], **{name: beside[name][place] for name in preset.needs & {"y", "g"}})


@pytest.mark.parametrize("preset", [*STEPPED, *OTHERS], ids=lambda p: p.name)
def test_what_is_taken_up_again_ends_with_the_same_bits(preset, generator):
    x = torch.randn(ROWS * STEPS, WIDTH, generator=generator) + 1
    beside = {"x": x, "y": x.roll(1, 1).abs(), "g": x.sin()}
    whole = begun(preset, beside)
    go_on(whole, preset, beside, range(STEPS))
    first = begun(preset, beside)
    go_on(first, preset, beside, range(STEPS // 2))
    second = begun(preset, beside)
    second.load(first.tensors(), first.tokens, [])
    go_on(second, preset, beside, range(STEPS // 2, STEPS))
    expected, found = whole.tensors(), second.tensors()
    assert expected.keys() == found.keys()
    assert [name for name, value in expected.items() if not torch.equal(value, found[name])] == []


def test_what_is_subtracted_while_training_is_in_the_bias_afterwards(generator):
    """A kind without a centre is saved as what it was trained as: the same function, and nothing more to keep."""
    preset = next(preset for preset in STEPPED if preset.name == "crosscoder")
    x = torch.randn(ROWS * STEPS, WIDTH, generator=generator) + 20
    run = begun(preset, {"x": x})
    go_on(run, preset, {"x": x}, range(STEPS))
    names, before = set(run.model.state_dict()), run.model.eval().encode(x).dense()
    folded = run.model.folded().encode(x).dense()
    assert run.model.middle is not None and "middle" in run.tensors()
    made = run.dictionary()
    assert made.centre() == 0 and set(made.state_dict()) == names
    for again in (made.encode(x).dense(), folded):
        torch.testing.assert_close(again, before, rtol=1e-4, atol=1e-4)


def test_the_last_batch_counts_for_what_of_it_lies_before_the_end(generator):
    """It is trained on however little that is, at a rate that falls to 0 at the end."""
    preset = next(preset for preset in STEPPED if preset.name == "top_k")
    x = torch.randn(2 * ROWS, WIDTH, generator=generator)
    for n_tokens in (ROWS + 1, 2 * ROWS - 1):
        run = begun(preset, {"x": x})
        run.n_tokens = n_tokens
        go_on(run, preset, {"x": x}, [0])
        before = run.model.encoder.weight.clone()
        go_on(run, preset, {"x": x}, [1])
        assert not torch.equal(run.model.encoder.weight, before)
