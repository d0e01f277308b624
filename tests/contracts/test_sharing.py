"""The laws of training in several processes, over the catalogue: splitting rows or latents changes nothing.

Among what must not change is all that maintainers count: the statistics of parts, merged, are those of the whole.
"""

import re
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from overtone.core import tensor_files
from overtone.core.artifacts import file_hash
from overtone.core.catalogue import entries
from overtone.core.errors import CapabilityError
from overtone.core.seeds import torch_generator
from overtone.dictionaries import starts
from overtone.dictionaries.autoencoder import Autoencoder
from overtone.dictionaries.codes import Support
from overtone.dictionaries.decoders.linear import Linear
from overtone.dictionaries.maintainers.zipf import ZipfDensity
from overtone.dictionaries.scores import GradientWeighted
from overtone.dictionaries.selectors.energy import Energy
from overtone.dictionaries.slices import Slice
from overtone.training import passes, step
from overtone.training.distributed import slice_step
from overtone.training.distributed.elsewhere import Elsewhere
from overtone.training.distributed.join import SPLITS, Sharing
from overtone.training.run import Run
from overtone.training.schedules import Schedule
from worlds import together, written

ENTRIES = {name: entry for name, entry in entries("dictionaries").items() if not entry.thing.whole}
WIDTH, LATENTS, K, ROWS, STEPS = 8, 12, 2, 25, 12
# Cannot be spread by latents, and why; every other kind can.
WHOLE = {"mp_sae": "each step looks for the best of all atoms", "poly_sae": "sums over all latents"}
# Settings in which a kind has other parts than by default.
OTHERWISE = [
    ("abs_top_k", {"scope": "batch"}),
    ("crosscoder", {"sparsity": 0.3}),
    ("gba", {"groups": 2, "highest": 0.4, "lowest": 0.2, "every": 0.08, "up": 0.3, "down": 1.5}),
    ("gated", {"target_l0": 1.5}),
    ("jump_relu", {"penalty": "tanh", "revive": 0.3, "threshold": 1.5}),
    ("matryoshka", {"groups": 3, "sampled": True}),
    ("mutual_choice", {"aux": "dead"}),
    ("p_annealing", {"start": 0.0, "target_l0": 1.5}),
    ("skip_transcoder", {"skip": False}),
    ("top_afa", {"most": 3}),
    ("v_sae", {"noise": "fixed", "beta": 0.0, "unit_rows": True, "aux_weight": 0.1}),
    ("v_sae", {"noise": "none", "rectified": False, "selected": True, "aux_weight": 0.1}),
]


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


def begun(preset, split=None, world=None) -> Run:
    """A run in which latents count as dead early, before its first step."""
    sharing = Sharing(split, world, "cpu")
    dictionary = sharing.made(preset.n_latents, lambda: preset.build(WIDTH, torch_generator(0, "dictionary")))
    if not isinstance(dictionary, Autoencoder):
        pytest.skip("not trained by gradient steps of the shared skeleton")

    n_tokens = 2 * STEPS * ROWS
    run = Run(
        preset.name, preset, dictionary, lr=3e-2, schedule=Schedule(), n_tokens=n_tokens,
        share=lambda model: sharing.share(model.double()),
    )  # fmt: skip
    run.firing.window, run.adam.clip = 3 * ROWS, 0.05  # latents die, and the gradients' norm is bounded
    for maintainer in run.maintainers:
        if isinstance(maintainer, ZipfDensity):
            maintainer.memory, maintainer.margin = 4 * ROWS, 0.8  # latents count as used too little early
    run.begin(*rows_for(preset)[0][:2])
    return run


def trained(preset, split=None, world=None) -> Run:
    """A run after some steps."""
    run = begun(preset, split, world)
    for batch in rows_for(preset):
        run.advance(*batch)
    run.measure()
    return run


def agree(found: dict[str, torch.Tensor], expected: dict[str, torch.Tensor]) -> None:
    assert found.keys() == expected.keys()
    for name in expected:
        torch.testing.assert_close(found[name], expected[name], rtol=1e-6, atol=1e-8, msg=lambda m, n=name: f"{n}: {m}")


def without_values(dictionary) -> list[str]:
    """Tensors of any kind, also such as are not saved, that a dictionary was put together without."""
    held = (tensor for part in dictionary.modules() for tensor in vars(part).items())
    plain = [name for name, value in held if isinstance(value, torch.Tensor) and value.is_meta]
    return plain + [name for name, tensor in dictionary.state_dict().items() if tensor.is_meta]


@pytest.mark.parametrize("split", list(SPLITS))
@pytest.mark.parametrize("name", list(ENTRIES))
def test_sharing_a_training_changes_nothing(name, split, tmp_path):
    preset = ENTRIES[name].thing.example(n_latents=LATENTS, k=K)
    if split == "latents" and name in WHOLE:
        with pytest.raises(
            CapabilityError,
            match=rf"^the latents of this kind .*{WHOLE[name]}.*\(--split rows, in Python split='rows'\)",
        ):
            together(2, lambda world: trained(preset, split, world))
    else:
        check(preset, split, 2, tmp_path)


def test_the_page_names_the_kinds_that_cannot_be_spread():
    page = (Path(__file__).parents[2] / "docs" / "scaling.md").read_text()
    row = next(line for line in page.splitlines() if line.startswith("| `latents`"))
    assert set(re.findall(r"`(\w+)`", row)) & set(ENTRIES) == set(WHOLE)


@pytest.mark.parametrize("split", list(SPLITS))
@pytest.mark.parametrize(("name", "knobs"), OTHERWISE)
def test_nor_does_it_with_other_settings_and_uneven_parts(name, knobs, split, monkeypatch, tmp_path):
    monkeypatch.setattr(passes, "BLOCK", 40)  # dense steps go in several blocks of rows
    monkeypatch.setattr(passes, "LEAST", 1)
    check(replace(ENTRIES[name].thing.example(n_latents=LATENTS + 2, k=K), **knobs), split, 3, tmp_path)


def check(preset, split, size, folder):
    """Several workers end where one does; with slices of the latents the first one has the dictionary."""
    alone = trained(preset)
    expected = {name: tensor.clone() for name, tensor in alone.tensors().items()}
    ours = alone.dictionary()

    def work(world):
        run = trained(preset, split, world)
        stored = written(run, folder / "kept", world)
        return run, {name: stored[name][...] for name in stored}, run.dictionary()

    for rank, (run, tensors, dictionary) in enumerate(together(size, work)):
        agree(tensors, expected)
        assert isinstance(dictionary, Elsewhere) == (rank > 0 and split == "latents")
        if not isinstance(dictionary, Elsewhere):
            agree(dictionary.state_dict(), ours.state_dict())
            assert dictionary.spec() == ours.spec() and not without_values(dictionary)
        assert run.records[-1].l0 == alone.records[-1].l0
        assert run.records[-1].share_dead == pytest.approx(alone.records[-1].share_dead)
        assert run.records[-1].loss == pytest.approx(alone.records[-1].loss)
        assert run.records[-1].told == pytest.approx(alone.records[-1].told)


@pytest.mark.parametrize("dense", [True, False])
@pytest.mark.parametrize("name", ["top_k", "abs_top_k", "batch_top_k"])
def test_dead_latents_of_all_slices_are_decoded_alike_densely_and_place_by_place(name, dense, monkeypatch, tmp_path):
    """As in one process, with slices that have more and fewer dead latents than are decoded in a row, or none."""
    seen = []

    def counted(model, centred, centre, latents, among):
        seen.append(len(latents))
        return step.decoded_densely(model, centred, centre, latents, among)

    monkeypatch.setattr(slice_step, "decoded_densely", counted)
    monkeypatch.setattr(step, "DENSE_WITH", LATENTS if dense else 0)
    check(replace(ENTRIES[name].thing.example(n_latents=LATENTS, k=1), k_aux=1), "latents", 3, tmp_path)
    assert {0, 1, 2} <= set(seen) if dense else not seen


SPREAD = pytest.mark.parametrize("name", sorted(ENTRIES.keys() - WHOLE.keys()))


class Largest(TorchDispatchMode):
    """Numbers in the largest tensor that comes out of any operation inside; bytes on their way to a file are none."""

    def __init__(self) -> None:
        super().__init__()
        self.size = 0

    def __torch_dispatch__(self, operation, types, arguments=(), options=None):
        made = operation(*arguments, **(options or {}))
        for tensor in made if isinstance(made, (tuple, list)) else (made,):
            if isinstance(tensor, torch.Tensor) and tensor.device.type != "meta" and tensor.dtype != torch.uint8:
                self.size = max(self.size, tensor.numel())
        return made


@SPREAD
def test_slices_start_with_the_bits_of_one_process_and_never_have_those_of_others(name, monkeypatch, tmp_path):
    """Until the end, and then only the first one has them."""
    monkeypatch.setattr(starts, "BLOCK", 0)  # drawn in several blocks, of some of which a slice has a part
    preset = ENTRIES[name].thing.example(n_latents=51, k=K)
    alone = {key: tensor.clone() for key, tensor in begun(preset).model.state_dict().items()}

    def work(world):
        with Largest() as largest:
            run = begun(preset, "latents", world)
            found = {key: tensor.clone() for key, tensor in run.model.state_dict().items()}
            written(run, tmp_path / "kept", world)
            before = largest.size
            run.dictionary()
        return found, run.share.names, before, largest.size

    for rank, (found, names, before, after) in enumerate(together(3, work)):
        assert before < 51 * WIDTH and (after < 51 * WIDTH) == (rank > 0)
        rows = {key for key in names if found[key].ndim > 1}
        assert rows
        for key in rows:
            assert torch.equal(found[key], alone[key].chunk(3)[rank]), key


def test_a_slice_is_all_that_is_read_of_a_checkpoint(tmp_path):
    preset = ENTRIES["top_k"].thing.example(n_latents=LATENTS, k=K)
    saved = written(trained(preset), tmp_path / "kept")

    class Spied:
        def __init__(self, name):
            self.name = name

        def __getitem__(self, index):
            found = saved[self.name][index]
            read.append(found.numel())
            return found

    def work(world):
        run = begun(preset, "latents", world)
        run.load({name: Spied(name) for name in saved}, 100, [])

    read = []
    together(3, work)
    assert max(read) == LATENTS // 3 * WIDTH


@pytest.mark.parametrize("split", list(SPLITS))
def test_a_saved_half_is_taken_up_again_by_three(split, tmp_path):
    """Two save, three load, and have the same."""
    preset = ENTRIES["batch_top_k"].thing.example(n_latents=LATENTS, k=K)
    saved = together(2, lambda world: written(trained(preset, split, world), tmp_path / "two", world))[0]

    def work(world):
        run = trained(preset, split, world)
        run.load(saved, 100, [])
        return written(run, tmp_path / "three", world)

    assert file_hash(together(3, work)[0].path) == file_hash(saved.path)


@pytest.mark.parametrize("split", list(SPLITS))
@pytest.mark.parametrize(("name", "knobs"), [*OTHERWISE, ("feature_choice", {}), ("g_sae", {}), ("mutual_choice", {})])
def test_taken_up_again_it_ends_with_the_bits_of_one_that_was_not_stopped(name, knobs, split, tmp_path):
    preset = replace(ENTRIES[name].thing.example(n_latents=LATENTS, k=K), **knobs)
    batches = rows_for(preset)

    def work(world):
        first, second = (begun(preset, split, world) for _ in range(2))
        for batch in batches[:8]:
            first.advance(*batch)
        second.load(written(first, tmp_path / "half", world), first.tokens, [])
        for batch in batches[8:]:
            first.advance(*batch)
            second.advance(*batch)
        return first.tensors(), second.tensors()

    for expected, found in together(2, work):
        assert [key for key, value in expected.items() if not torch.equal(value, found[key])] == []


@pytest.mark.parametrize("name", ["top_k", "p_annealing"])
def test_a_batch_with_fewer_rows_than_workers_is_everyones(name):
    preset = ENTRIES[name].thing.example(n_latents=LATENTS, k=K)

    def work(world):
        run = trained(preset, "rows" if world else None, world)
        run.advance(rows_for(preset)[0][0][:2])
        return run.tensors()

    for tensors in together(3, work):
        agree(tensors, work(None))


def test_slices_agree_on_the_length_of_rows_that_influence_is_told_by(generator):
    """Rows of one slice are longer than those of the others."""
    score, decoder = GradientWeighted(0.7), Linear(WIDTH, LATENTS)
    decoder.weight.data.copy_(torch.randn(LATENTS, WIDTH, generator=generator) * torch.arange(LATENTS)[:, None])
    beside = {"g": torch.randn(ROWS, WIDTH, generator=generator)}

    def work(world):
        first, last = world.span(LATENTS)
        part, ours = Linear(WIDTH, last - first), GradientWeighted(0.7)
        part.weight.data.copy_(decoder.weight.data[first:last])
        ours.confer(part, Slice(tuple(world.spans(LATENTS)), world.rank, world.gather, world.add))
        return ours.sides(part, beside)["pull"]

    torch.testing.assert_close(torch.cat(together(3, work), 1), score.sides(decoder, beside)["pull"])


@pytest.mark.parametrize("most", [None, 7])
def test_slices_that_nominate_too_few_are_asked_again_until_they_choose_what_one_would(most, generator):
    """Energy's number of active latents is found from scores that lie in several hands."""
    scores = torch.randn(ROWS, LATENTS, generator=generator).relu().square()
    states = torch.randn(ROWS, WIDTH, generator=generator)
    whole = Energy(most).nominate(scores, company=True, states=states)

    def work(world):
        selection, (first, last) = Energy(most), world.span(LATENTS)
        selection.slice = where = Slice(tuple(world.spans(LATENTS)), world.rank, world.gather, world.add)
        selection.confer(lambda: scores[:1, first:last], states[:1])  # a row says too little of the others
        selection._depth = 1
        for _ in range(5):
            own = selection.nominate(scores[:, first:last], company=True, states=states)
            taken = own.take(scores[:, first:last])
            rows, latents, every = (where.whole(t) for t in (own.rows, own.latents + first, taken))
            order = torch.sort(rows, stable=True).indices
            nominees = Support(rows[order], latents[order], ROWS, LATENTS)
            keep = selection.unite(nominees, every[order], states)
            if keep is not None:
                return nominees.kept(keep)
            selection.widen()
        raise AssertionError("never enough")

    for found in together(3, work):
        places = sorted(zip(whole.rows.tolist(), whole.latents.tolist(), strict=True))
        assert sorted(zip(found.rows.tolist(), found.latents.tolist(), strict=True)) == places


@pytest.mark.parametrize("block", [1, 40, 2**22])
def test_a_permutation_moves_rows_and_lists_between_slices_as_within_one(block, generator, monkeypatch):
    """And no slice sees more than a block of each at a time."""
    monkeypatch.setattr(tensor_files, "BLOCK", block)
    n = LATENTS + 2  # slices of 4, 5 and 5
    order = torch.randperm(n, generator=generator)
    part, named = torch.randn(n, 3, generator=generator), torch.tensor([0, 3, 7, 11])
    alone = Slice.all(n)

    def work(world):
        where = Slice(tuple(world.spans(n)), world.rank, world.gather, world.add)
        first, last = world.span(n)
        with Largest() as largest:
            moved = where.moved(part[first:last], order)
        if block == 1:
            assert largest.size < part.numel()
        return moved, where.renamed(where.inside(named), order) + first

    moved, renamed = (torch.cat(parts) for parts in zip(*together(3, work), strict=True))
    assert torch.equal(moved, alone.moved(part, order)) and torch.equal(moved, part[order])
    assert torch.equal(renamed, alone.renamed(named, order))
    assert sorted(order[renamed].tolist()) == named.tolist()
