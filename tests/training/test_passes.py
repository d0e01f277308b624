"""A dense step that goes through its rows in blocks is the step of the whole batch."""

from dataclasses import dataclass

import pytest
import torch

from overtone.core.catalogue import entries
from overtone.core.seeds import torch_generator
from overtone.dictionaries.kernels import dense
from overtone.dictionaries.maintainers.prefixes import SampledPrefixes
from overtone.dictionaries.objectives.base import Objective
from overtone.dictionaries.presets.crosscoder import Crosscoder
from overtone.dictionaries.presets.gated import Gated
from overtone.dictionaries.presets.gba import GBA
from overtone.dictionaries.presets.jump_relu import JumpReLU
from overtone.dictionaries.presets.p_annealing import PAnnealing
from overtone.dictionaries.presets.relu_l1 import ReluL1
from overtone.dictionaries.presets.skip_transcoder import SkipTranscoder
from overtone.dictionaries.presets.top_k import TopK
from overtone.dictionaries.presets.transcoder import Transcoder
from overtone.dictionaries.presets.v_sae import VSAE
from overtone.training import passes, run
from overtone.training.counting import Counting
from overtone.training.distributed.share import Alone
from overtone.training.passes import divisible, in_blocks, whole
from overtone.training.run import Run
from overtone.training.schedules import Schedule
from overtone.training.step import Given

WIDTH, LATENTS, ROWS = 6, 16, 41
DEAD = torch.tensor([1, 4, 5, 11])
STATE = {
    name: torch.tensor(value, dtype=torch.float64)
    for name, value in {"price.factor": 0.7, "annealing.p": 0.6, "annealing.factor": 1.3}.items()
}
PRESETS = [
    ReluL1(LATENTS),
    ReluL1(LATENTS, target_l0=3.0),
    Gated(LATENTS),
    JumpReLU(LATENTS, revive=0.3),
    JumpReLU(LATENTS, penalty="tanh"),
    JumpReLU(LATENTS, target_l0=2.0, revive=0.3),
    PAnnealing(LATENTS),
    GBA(LATENTS),
    Transcoder(LATENTS),
    Crosscoder(LATENTS, k=3, sparsity=0.5, views=2),
    VSAE(LATENTS, k=3, aux_weight=0.1, k_aux=2),
    VSAE(LATENTS, k=3, noise="none", rectified=False),
]


@pytest.fixture
def blocks(monkeypatch):
    """Some blocks of rows in each batch."""
    monkeypatch.setattr(passes, "BLOCK", 9 * LATENTS)
    monkeypatch.setattr(passes, "LEAST", 1)


def started(preset, dtype=torch.float64):
    generator = torch_generator(0, "passes")
    x = torch.randn(ROWS, WIDTH, generator=generator, dtype=dtype) + 1
    model = preset.build(WIDTH, generator).to(dtype).train()
    y = x.roll(1, 1).abs() if "y" in preset.needs else None
    model.start(x, y)
    for parameter in model.parameters():
        parameter.data.add_(0.1 * torch.randn(parameter.shape, generator=generator, dtype=dtype))
    needs_all, peaks = any(o.needs_all for o in preset.objectives()), any(m.wants_peaks for m in preset.maintainers())
    return model, Given(x, DEAD, 0.5, y=y, state=STATE, all_latents=needs_all, peaks=peaks, dense=True)


def gradients(model):
    found = {name: p.grad for name, p in model.named_parameters()}
    model.zero_grad()
    return found


@pytest.mark.parametrize("preset", PRESETS, ids=lambda p: f"{p.name}-{getattr(p, 'target_l0', '')}")
def test_blocks_give_the_loss_and_the_gradients_of_the_whole_batch(preset, blocks):
    model, given = started(preset)
    objectives, maintainers = preset.objectives(), preset.maintainers()
    assert divisible(model, objectives, maintainers)
    for maintainer in maintainers:
        maintainer.begin(model)
    expected, wanted = whole(Alone(model), objectives, given, maintainers), gradients(model)
    found, had = in_blocks(Alone(model), objectives, given, maintainers), gradients(model)
    for name in ("loss", "x", "missed", "counts", "active", "peaks", "tallies"):
        torch.testing.assert_close(getattr(found, name), getattr(expected, name), msg=name)
    assert found.step is None
    assert (found.peaks is not None) == (preset.name == "gba")
    assert any(t is not None for t in found.tallies) == (preset.name == "p_annealing")
    torch.testing.assert_close(had, wanted)


def test_blocks_cover_the_rows_in_order_and_differ_by_a_row_at_most(blocks):
    model, given = started(Transcoder(LATENTS))
    parts = list(passes._blocks(given, LATENTS))
    assert torch.equal(torch.cat([p.x for p in parts]), given.x)
    assert torch.equal(torch.cat([p.y for p in parts]), given.y)
    assert [p.first for p in parts] == [sum(len(q.x) for q in parts[:i]) for i in range(len(parts))]
    sizes = {len(p.x) for p in parts}
    assert len(parts) == 5 and max(sizes) - min(sizes) <= 1


@dataclass(frozen=True)
class OfTheBatch(Objective):
    """A term that says nothing about its rows."""

    def __call__(self, step):
        return step.values.sum().square()


def test_what_needs_the_whole_batch_gets_it():
    preset = ReluL1(LATENTS)
    model = preset.build(WIDTH, torch_generator(0, ""))
    assert not divisible(model, (*preset.objectives(), OfTheBatch()), ())
    assert not divisible(model, preset.objectives(), [SampledPrefixes(2)])  # it looks at the step
    for name, entry in entries("dictionaries").items():
        preset = entry.thing.example(n_latents=LATENTS, k=3)
        if not preset.whole:
            model = preset.build(WIDTH, torch_generator(0, ""))
            cut = divisible(model, preset.objectives(), preset.maintainers())
            assert not (cut and model.selection.rows_compete), name


def begun(preset, x):
    made = Run(
        "", preset, preset.build(x.shape[1], torch_generator(0, "")).train(), lr=1e-3, schedule=Schedule(), n_tokens=999
    )
    made.firing.window = 2 * ROWS
    made.begin(x)
    return made


@pytest.mark.parametrize(
    "preset",
    [
        ReluL1(LATENTS, target_l0=3.0),
        JumpReLU(LATENTS, target_l0=3.0, revive=0.1),
        PAnnealing(LATENTS, start=0.0),
        GBA(LATENTS, groups=2, highest=0.6, lowest=0.4, every=0.05),
    ],
    ids=lambda preset: preset.name,
)
def test_a_training_in_blocks_that_is_taken_up_again_ends_with_the_same_bits(preset, blocks, generator):
    x = torch.randn(8, ROWS, WIDTH, generator=generator) + 1
    first, second = begun(preset, x[0]), begun(preset, x[0])
    for rows in x[:4]:
        first.advance(rows)
    assert first._latest.step is None
    second.load(first.tensors(), first.tokens, [])
    for rows in x[4:]:
        first.advance(rows)
        second.advance(rows)
    expected, found = first.tensors(), second.tensors()
    assert [name for name, value in expected.items() if not torch.equal(value, found[name])] == []


def test_a_run_takes_blocks_for_dense_steps_and_says_the_same_of_them(monkeypatch, generator):
    x, records = torch.randn(6, ROWS, WIDTH, generator=generator) + 1, []
    for size in (9 * LATENTS, 2**22):
        monkeypatch.setattr(passes, "BLOCK", size)
        monkeypatch.setattr(passes, "LEAST", 1)
        made = begun(ReluL1(LATENTS, target_l0=3.0), x[0])
        for rows in x:
            made.advance(rows)
        records.append(made.measure())
    for name in ("loss", "unexplained", "l0", "share_dead"):
        assert getattr(records[0], name) == pytest.approx(getattr(records[1], name), rel=1e-4), name


def test_a_sparse_step_is_not_cut(monkeypatch, generator):
    def refused(*_):
        raise AssertionError("cut")

    monkeypatch.setattr(run, "in_blocks", refused)
    x = torch.randn(ROWS, WIDTH, generator=generator)
    for preset in (TopK(LATENTS, k=2), SkipTranscoder(LATENTS, k=2)):
        made = Run("", preset, preset.build(WIDTH, torch_generator(0, "")), lr=1e-3, schedule=Schedule(), n_tokens=999)
        made.begin(x, x)
        made.advance(x, x)
        assert made._latest.step is not None


@pytest.mark.parametrize(("preset", "products"), [(ReluL1(LATENTS), 5), (JumpReLU(LATENTS), 5), (Gated(LATENTS), 7)])
def test_blocks_make_no_more_products_and_keep_no_matrix_of_all_rows(preset, products, blocks, monkeypatch, generator):
    monkeypatch.setenv("OVERTONE_KERNELS", "plain")  # torch's products are counted, those of compiled kernels not seen
    rows = 64 * ROWS
    x = torch.randn(rows, WIDTH, generator=generator)
    made = begun(preset, x)
    with Counting(rows, LATENTS, WIDTH) as cost:
        made.advance(x)
    assert cost.matrices == 0
    assert products <= cost.products < products + 0.2


def test_gradients_are_added_up_only_where_they_were_asked_to_be(generator):
    weight = torch.randn(5, 3, generator=generator).requires_grad_()
    values = torch.randn(7, 5, generator=generator)
    dense.decode(values, weight).sum().backward()
    one = weight.grad.clone()
    with dense.adding_up() as sums:
        out = dense.decode(values, weight).sum()
    (apart,) = torch.autograd.grad(out, weight, retain_graph=True)
    torch.testing.assert_close(apart, one)
    torch.testing.assert_close(weight.grad, one)
    sums.open = True
    out.backward()
    torch.testing.assert_close(weight.grad, 2 * one)
    weight.grad = None
    with dense.adding_up() as sums:
        out = dense.decode(values, weight).sum()
    sums.open = True
    out.backward()  # there is nothing yet to add to
    torch.testing.assert_close(weight.grad, one)
