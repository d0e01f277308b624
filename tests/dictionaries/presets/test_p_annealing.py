"""p-annealing: the course of the power, the size of the price, and its degenerate setting."""

import pytest
import torch

from overtone.dictionaries.maintainers.annealing import QUEUE, Annealing
from overtone.dictionaries.objectives.penalty import FLOOR, L1, powers
from overtone.dictionaries.objectives.reconstruction import Reconstruction
from overtone.dictionaries.presets.p_annealing import PAnnealing
from overtone.training.fit import fit
from overtone.training.run import Run
from overtone.training.schedules import Schedule
from overtone.training.step import Given, forward


def test_with_the_power_kept_at_one_it_is_relu_l1_on_unit_rows_bit_for_bit(generator, monkeypatch):
    x = torch.randn(400, 8, generator=generator) + 1
    options = {"n_tokens": 8_000, "batch_rows": 100, "quiet": True}
    annealed = fit(PAnnealing(24, end=1.0), x, **options).dictionary.state_dict()
    lowered = fit(PAnnealing(24), x, **options).dictionary.state_dict()
    monkeypatch.setattr(PAnnealing, "objectives", lambda self: (Reconstruction(), L1(self.sparsity)))
    plain = fit(PAnnealing(24), x, **options).dictionary.state_dict()
    assert all(torch.equal(value, annealed[name]) for name, value in plain.items())
    assert not torch.equal(lowered["decoder.weight"], plain["decoder.weight"])


def test_the_power_falls_in_equal_steps_from_one_to_its_end():
    annealing = Annealing(end=0.2, start=0.5, updates=4)
    course = [annealing.power(i / 1000) for i in range(1000)]
    assert course[:500] == [1.0] * 500 and course[-1] == pytest.approx(0.2)
    assert sorted(set(course), reverse=True) == pytest.approx([1.0, 0.8, 0.6, 0.4, 0.2])


def powers_trained_with(preset, batches, generator):
    """(batches,) the power in each batch's price, and by how much every fall changed the price of its batch."""
    x = torch.randn(batches * 100, 8, generator=generator)
    run = Run("p", preset, preset.build(8, generator).train(), lr=1e-3, schedule=Schedule(), n_tokens=len(x))
    run.begin(x)
    course, jumps, price = [], [], run.objectives[1]
    for rows in x.split(100):
        before = {name: value.clone() for name, value in run.published().items()}
        course.append(float(before["annealing.p"]))
        step = forward(run.model, Given(rows, run.firing.dead, 0.5))
        run.advance(rows)
        sizes = []
        for step.state in (before, run.published()):
            sizes.append(price(step).item())
        jumps.append(sizes[1] / sizes[0])
    return course, jumps


@pytest.mark.parametrize("batches", [3, 4, 7, 10, 20, 22, 43, 44, 60])
def test_the_last_batch_has_the_last_power_however_few_there_are(batches, generator):
    course, jumps = powers_trained_with(PAnnealing(24), batches, generator)
    assert course[-1] == pytest.approx(0.2) and course == sorted(course, reverse=True)
    assert course[: batches // 2] == [1.0] * (batches // 2)
    assert all(0.8 < jump < 1.25 for jump in jumps), jumps


def test_few_steps_of_the_power_fall_where_the_share_of_the_training_says(generator):
    preset = PAnnealing(24, start=0.25, updates=3, end=0.4)
    course, _ = powers_trained_with(preset, 40, generator)
    annealing = Annealing(0.4, 0.25, 3)
    assert course[1:] == pytest.approx([annealing.power(i / 40) for i in range(39)])


def test_the_price_does_not_jump_when_the_power_falls(generator):
    x = torch.randn(3000, 8, generator=generator)
    preset = PAnnealing(24, start=0.3)
    run = Run("p", preset, preset.build(8, generator).train(), lr=1e-3, schedule=Schedule(), n_tokens=30_000)
    run.begin(x)
    jumps, price = [], run.objectives[1]
    for i in range(200):
        before = {name: value.clone() for name, value in run.published().items()}
        rows = x[(i % 20) * 150 :][:150]
        run.advance(rows)
        after, sizes = run.published(), []
        if after["annealing.p"] != before["annealing.p"]:
            step = forward(run.model, Given(rows, run.firing.dead, 0.5))
            for step.state in (before, after):
                sizes.append(price(step).item())
            jumps.append(sizes[1] / sizes[0])
    assert len(jumps) == 10 and all(0.8 < jump < 1.25 for jump in jumps), jumps


def test_sizes_are_measured_in_time_and_no_more_often_than_needed(generator, monkeypatch):
    """What a fall of the power looks at is there, as if every batch had been measured."""
    x = torch.randn(400, 8, generator=generator)
    options = {"n_tokens": 60_000, "batch_rows": 100, "quiet": True}
    measured, near = [], Annealing._is_near
    monkeypatch.setattr(Annealing, "_is_near", lambda self, at: measured.append(near(self, at)) or measured[-1])
    ours = fit(PAnnealing(24, updates=3), x, **options).dictionary.state_dict()
    monkeypatch.setattr(Annealing, "_is_near", lambda self, progress: True)
    always = fit(PAnnealing(24, updates=3), x, **options).dictionary.state_dict()
    assert all(torch.equal(value, always[name]) for name, value in ours.items())
    assert 3 * QUEUE <= sum(measured) <= 7 * QUEUE and len(measured) == 600


def test_the_slope_of_a_power_is_that_of_its_formula():
    a = torch.tensor([FLOOR / 7, FLOOR / 2, 3 * FLOOR, 0.2, 1.7], dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda a: powers(a, 0.4), (a,), eps=1e-7)
    (powers(a, 0.4) * torch.arange(5)).sum().backward()
    torch.testing.assert_close(a.grad[2:], torch.arange(2, 5) * 0.4 * a.detach()[2:] ** -0.6)


def test_powers_of_small_amounts_have_bounded_slopes_and_no_nan():
    a = torch.tensor([0.0, 1e-12, FLOOR / 2, FLOOR, 1.0, 4.0], dtype=torch.float64, requires_grad=True)
    value = powers(a, 0.5)
    value.sum().backward()
    assert torch.isfinite(a.grad).all() and float(a.grad.max()) <= 0.5 * FLOOR**-0.5 * 1.001
    torch.testing.assert_close(value[3:].detach(), a.detach()[3:].sqrt())
    assert value[0].item() == 0.0 and (value.diff() >= 0).all()
    exact = torch.rand(100) * 2
    assert torch.equal(powers(exact, 1.0), exact)
