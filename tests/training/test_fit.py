"""Training as a whole: it learns, it is scale-free, it resumes bit for bit, and it refuses what cannot be trained
on."""

import math
import os
import shutil
import signal

import pytest
import torch
from safetensors.torch import load_file, save_file

from overtone.core.artifacts import MANIFEST, Manifest, new_folder
from overtone.core.batch import ActivationBatch, Where
from overtone.core.catalogue import entries
from overtone.core.errors import DataError, DivergenceError, SettingError, ShapeError, StoreError
from overtone.core.sites import Site
from overtone.data.synthetic import plant
from overtone.dictionaries.kernels.dispatch import using
from overtone.dictionaries.presets.batch_top_k import BatchTopK
from overtone.dictionaries.presets.crosscoder import Crosscoder
from overtone.dictionaries.presets.feature_choice import FeatureChoice
from overtone.dictionaries.presets.mutual_choice import MutualChoice
from overtone.dictionaries.presets.pca import PCA
from overtone.dictionaries.presets.relu_l1 import ReluL1
from overtone.dictionaries.presets.skip_transcoder import SkipTranscoder
from overtone.dictionaries.presets.top_k import TopK
from overtone.dictionaries.storage import load_dictionary
from overtone.evaluate.reconstruction import fvu
from overtone.training.fit import Job, fit, fit_many

SMALL = {"n_tokens": 1600, "batch_rows": 64, "quiet": True}


@pytest.fixture
def rows(generator):
    """(300, 8) correlated states with a mean."""
    return torch.randn(300, 8, generator=generator) @ torch.randn(8, 8, generator=generator) + 1


class Source:
    """A minimal activation source over matrices in memory: batches of one epoch in a seeded order."""

    def __init__(self, matrices, n_batches=None):
        self.n_batches = n_batches
        self.matrices = {Site.parse(name): matrix for name, matrix in matrices.items()}
        self.sites = tuple(self.matrices)

    def batches(self, rows, *, seed=None, epochs=1):
        n = len(next(iter(self.matrices.values())))
        order = torch.randperm(n, generator=torch.Generator().manual_seed((seed or 0) % 2**31))
        for places in order.split(rows)[: self.n_batches]:
            nothing = torch.zeros(len(places), dtype=torch.int64)
            yield ActivationBatch({s: m[places] for s, m in self.matrices.items()}, Where(nothing, nothing, nothing))


def weights(fitted):
    return fitted.dictionary.state_dict()


def same(one, other):
    """Equal bit for bit."""
    return all(torch.equal(a, b) for a, b in zip(weights(one).values(), weights(other).values(), strict=True))


def test_training_lowers_the_error_and_records_its_course(rows):
    seen = []
    fitted = fit(TopK(16, k=4), rows, n_tokens=6_400, batch_rows=64, quiet=True, on_record=seen.append)
    first, last = fitted.record[0], fitted.record[-1]
    assert last.unexplained < 0.5 * first.unexplained and last.tokens == 6_400 and last.l0 == 4
    assert tuple(seen) == fitted.record and len(seen) == pytest.approx(50, abs=2)
    assert not fitted.dictionary.training and not any(p.requires_grad for p in fitted.dictionary.parameters())


@pytest.mark.parametrize("preset", [TopK(16, k=3), BatchTopK(16, k=3), ReluL1(16)], ids=lambda p: p.name)
def test_a_scaled_training_is_the_same_training(preset, rows):
    """A power of four scales without rounding, so codes must agree to the last bit."""
    one, other = (fit(preset, factor * rows, **SMALL).dictionary for factor in (1.0, 64.0))
    torch.testing.assert_close(64 * one.encode(rows).dense(), other.encode(64 * rows).dense(), rtol=0, atol=0)
    torch.testing.assert_close(one.atoms(), other.atoms(), rtol=0, atol=0)


@pytest.mark.parametrize(
    "preset",
    [TopK(16, k=3), BatchTopK(16, k=3), ReluL1(16), FeatureChoice(16, k=3), MutualChoice(16, k=3)],
    ids=lambda p: p.name,
)
@pytest.mark.parametrize("source", ["matrix", "source"])
def test_an_interrupted_and_resumed_training_equals_an_uninterrupted_one(preset, source, rows, tmp_path):
    data = rows if source == "matrix" else Source({"residual.1": rows})

    def stop(record):
        if record.tokens >= 700:
            raise KeyboardInterrupt

    whole = fit(preset, data, **SMALL)
    with pytest.raises(KeyboardInterrupt):
        fit(preset, data, **SMALL, checkpoint=tmp_path / "state", on_record=stop)
    resumed = fit(preset, data, **SMALL, checkpoint=tmp_path / "state")
    assert same(whole, resumed)
    assert [(r.tokens, r.loss, r.share_dead) for r in whole.record] == [
        (r.tokens, r.loss, r.share_dead) for r in resumed.record
    ]


def test_ctrl_c_waits_for_the_end_of_the_step_and_saves(rows, tmp_path):
    before = signal.getsignal(signal.SIGINT)

    def press(record):
        if record.tokens == 640:
            os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        fit(TopK(16, k=3), rows, **SMALL, checkpoint=tmp_path / "state", record_every=64, on_record=press)
    assert signal.getsignal(signal.SIGINT) is before
    assert same(fit(TopK(16, k=3), rows, **SMALL), fit(TopK(16, k=3), rows, **SMALL, checkpoint=tmp_path / "state"))


def test_a_finished_training_is_reused_not_repeated(rows, tmp_path):
    first = fit(TopK(16, k=3), rows, **SMALL, checkpoint=tmp_path / "state")
    steps = []
    again = fit(TopK(16, k=3), rows, **SMALL, checkpoint=tmp_path / "state", on_record=steps.append)
    assert not steps and same(first, again) and again.record == first.record


def test_a_checkpoint_of_another_training_is_refused_by_name(rows, tmp_path):
    fit(TopK(16, k=3), rows, **SMALL, checkpoint=tmp_path / "state")
    with pytest.raises(StoreError, match=r"another unfinished training \(seeds \[0\] there, \[1\] asked; seed 0"):
        fit(TopK(16, k=3), rows, **SMALL, seed=1, checkpoint=tmp_path / "state")
    with pytest.raises(StoreError, match="rows .* there, .* asked"):
        fit(TopK(16, k=3), rows + 1, **SMALL, checkpoint=tmp_path / "state")
    fit(TopK(16, k=3), rows, **SMALL, seed=1, checkpoint=tmp_path / "state", resume=False)


def test_rows_in_another_order_are_another_training(rows, tmp_path):
    fit(TopK(16, k=3), rows, **SMALL, checkpoint=tmp_path / "state")
    with pytest.raises(StoreError, match="holds another unfinished training"):
        fit(TopK(16, k=3), rows.roll(1, 0), **SMALL, checkpoint=tmp_path / "state")


def test_a_damaged_checkpoint_is_refused(rows, tmp_path):
    fit(TopK(16, k=3), rows, **SMALL, checkpoint=tmp_path / "state")
    with open(tmp_path / "state" / "run-0.safetensors", "r+b") as file:
        file.truncate(100)
    with pytest.raises(StoreError, match="damaged"):
        fit(TopK(16, k=3), rows, **SMALL, checkpoint=tmp_path / "state")
    assert (tmp_path / "state" / MANIFEST).exists()


def test_a_checkpoint_of_a_version_that_kept_less_is_refused(rows, tmp_path):
    fit(TopK(16, k=3), rows, **SMALL, checkpoint=tmp_path / "state")
    tensors = load_file(tmp_path / "state" / "run-0.safetensors")
    lost = next(name for name in tensors if name.startswith("maintainer."))
    del tensors[lost]
    with new_folder(tmp_path / "older", Manifest("training", 0)) as part:
        save_file(tensors, part / "run-0.safetensors")
        shutil.copy(tmp_path / "state" / "state.json", part)
    with pytest.raises(StoreError, match=f"another version, it lacks {lost}: start over"):
        fit(TopK(16, k=3), rows, **SMALL, checkpoint=tmp_path / "older")


def test_dictionaries_trained_together_equal_those_trained_alone(rows):
    states = {"residual.1": rows, "residual.2": 2 * rows.flip(1)}
    jobs = [
        Job(TopK(16, k=3), Site("residual", 1)),
        Job(ReluL1(16), Site("residual", 2)),
        Job(PCA(4), Site("residual", 1)),
    ]
    together = fit_many(jobs, states, **SMALL)
    alone = [fit(job.preset, states, site=job.site, **SMALL) for job in jobs]
    assert all(same(a, b) for a, b in zip(together, alone, strict=True))


def test_a_training_shorter_than_a_batch_trains_on_all_of_its_rows(rows):
    short = fit(TopK(16, k=3), rows, n_tokens=60, batch_rows=400, quiet=True)
    assert same(short, fit(TopK(16, k=3), rows, n_tokens=60, batch_rows=60, quiet=True))
    assert short.record[-1].tokens == 60
    untrained = fit(TopK(16, k=3), rows, n_tokens=60, batch_rows=60, lr=1e-12, quiet=True)
    assert not torch.allclose(weights(short)["encoder.weight"], weights(untrained)["encoder.weight"], atol=1e-5)


def test_a_mapping_of_matrices_and_its_site_by_name_agree(rows):
    assert same(fit(TopK(16, k=3), rows, **SMALL), fit(TopK(16, k=3), {"residual.3": rows}, site="residual.3", **SMALL))


def test_the_same_seed_gives_the_same_dictionary_and_another_one_does_not(rows):
    torch.manual_seed(1)
    one = fit(TopK(16, k=3), rows, **SMALL)
    torch.manual_seed(2)
    state = torch.get_rng_state()
    assert same(one, fit(TopK(16, k=3), rows, **SMALL)) and not same(one, fit(TopK(16, k=3), rows, **SMALL, seed=1))
    assert torch.equal(state, torch.get_rng_state()), "training must not touch the global generator"


class BadStart(TopK):
    """Half of the latents start far too quiet to be selected, and count as dead soon."""

    window = 500

    def build(self, width, generator):
        model = super().build(width, generator)
        model.encoder.bias.data[: self.n_latents // 2] = -2.0
        return model


def test_the_auxiliary_loss_revives_dead_latents():
    x = plant(24, 12, max_cosine=0.8, seed=0).sample(2000, active=2, seed=1, noise=0.02).x
    without, with_it = (
        fit(BadStart(24, k=2, aux_weight=weight), x, n_tokens=40_000, batch_rows=200, quiet=True, lr=1e-2).record[-1]
        for weight in (0.0, 1 / 32)
    )
    assert without.share_dead >= 0.3 and with_it.share_dead <= 0.1
    assert with_it.unexplained < 0.8 * without.unexplained


def test_a_fitted_dictionary_is_saved_with_its_record_and_site(rows, tmp_path):
    fitted = fit(TopK(16, k=3), {"residual.3": rows}, site="residual.3", **SMALL)
    fitted.save(tmp_path / "made")
    loaded = load_dictionary(tmp_path / "made")
    assert torch.equal(loaded.encode(rows).dense(), fitted.dictionary.encode(rows).dense())
    assert loaded.origin == {
        "preset": "top_k",
        "settings": {"n_latents": 16, "k": 3, "aux_weight": 1 / 32, "k_aux": None},
    }


@pytest.mark.parametrize("preset", [SkipTranscoder(32, k=3, skip=False), Crosscoder(32, k=3)], ids=lambda p: p.name)
def test_what_is_learned_does_not_depend_on_where_the_states_lie(preset):
    """Kinds with a budget and no centre learn as well from states around a mean twenty times as long as they spread."""
    x = plant(24, 16, max_cosine=0.7, seed=0).sample(4000, active=3, seed=0, noise=0.05).x
    away = 20 * (x - x.mean(0)).norm(dim=1).mean() * torch.ones(16) / 4
    errors = []
    for moved in (x, x + away):
        views = {"mlp_in.0": moved, "mlp_out.0": moved.flip(1)}
        both = list(views) if preset.several else "mlp_in.0"
        target = "mlp_out.0" if "y" in preset.needs else None
        made = fit(preset, views, site=both, target=target, n_tokens=60_000, batch_rows=200, quiet=True).dictionary
        read = torch.cat(list(views.values()), 1) if preset.several else moved
        errors.append(fvu(read if target is None else views[target], made.reconstruct(read)))
    assert errors[1] < 1.3 * errors[0]


# ---------------------------------------------------------------------------------------------------- what is refused
def test_nothing_to_train_on_is_refused(rows):
    with pytest.raises(DataError, match="no rows to train on"):
        fit(TopK(16, k=3), rows[:0], **SMALL)
    with pytest.raises(DataError, match="no rows to train on"):
        fit(TopK(16, k=3), Source({"residual.1": rows[:0]}), **SMALL)
    with pytest.raises(DataError, match="yields no rows"):
        fit(TopK(16, k=3), Source({"residual.1": rows}, n_batches=0), **SMALL)


@pytest.mark.parametrize("name", sorted(n for n, e in entries("dictionaries").items() if e.thing.needs <= {"where"}))
def test_rows_that_do_not_vary_are_refused_whatever_would_be_fitted(name, rows):
    preset = entries("dictionaries")[name].thing.example(n_latents=8, k=2)
    with pytest.raises(DataError, match="all 50 rows are equal"):
        fit(preset, rows[:1].expand(50, -1), **SMALL)
    with pytest.raises(DataError, match="one row only"):
        fit(preset, rows[:1], **SMALL)


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_states_that_are_not_finite_are_refused_with_their_row(rows, bad):
    rows[17, 3] = bad
    with pytest.raises(DataError, match="first: row 17"):
        fit(TopK(16, k=3), rows, **SMALL)


def test_what_is_no_matrix_is_refused(rows):
    with pytest.raises(ShapeError, match=r"\(rows, width\)"):
        fit(TopK(16, k=3), rows[None], **SMALL)
    with pytest.raises(SettingError, match="cannot train on a list"):
        fit(TopK(16, k=3), [1, 2], **SMALL)


def test_sites_that_are_missing_or_ambiguous_are_named(rows):
    with pytest.raises(SettingError, match=r"no states of residual.9; there are residual.1"):
        fit(TopK(16, k=3), {"residual.1": rows}, site="residual.9", **SMALL)
    with pytest.raises(SettingError, match="say which to train on"):
        fit(TopK(16, k=3), Source({"residual.1": rows, "residual.2": rows}), **SMALL)
    with pytest.raises(SettingError, match="say which to train on"):
        fit(TopK(16, k=3), {"residual.1": rows, "residual.2": rows}, **SMALL)


def test_a_diverging_training_says_so_and_proposes_a_rate(rows, tmp_path):
    with pytest.raises(DivergenceError, match=r"diverged after \d+ tokens: .*lr=1.0e\+29"):
        fit(ReluL1(16), rows, **SMALL, lr=1e30, checkpoint=tmp_path / "state")
    assert not (tmp_path / "state").exists()


def test_a_training_that_diverged_between_two_records_says_so_whatever_computes_it(rows):
    for kind in ("compiled", "torch", "plain"):
        try:
            with using(kind), pytest.raises(DivergenceError):
                fit(TopK(128, k=3), rows, **SMALL, lr=1e38, record_every=1600)
        except SettingError:
            assert kind == "compiled", "only a compiler may be missing"


def test_settings_out_of_range_are_refused(rows):
    for wrong in (
        {"n_tokens": 0},
        {"n_tokens": 10, "batch_rows": 0},
        {"n_tokens": 10, "lr": 0.0},
        {"n_tokens": 10, "lr": math.inf},
    ):
        with pytest.raises(SettingError):
            fit(TopK(16, k=3), rows, quiet=True, **wrong)
    with pytest.raises(SettingError, match="k=17 .* only 16"):
        TopK(16, k=17)
    with pytest.raises(SettingError, match="nothing to train"):
        fit_many([], rows, n_tokens=10)


@pytest.mark.parametrize(("preset", "told"), [("top_k", "got str 'top_k'"), (TopK, "got the class TopK")])
def test_a_name_or_a_class_is_no_preset(preset, told, rows):
    with pytest.raises(SettingError, match=f"TopK\\(n_latents=512, k=16\\); {told}"):
        fit(preset, rows, **SMALL)


def test_counts_are_whole_numbers_and_states_are_not(rows):
    for wrong in ({"n_tokens": 4e3}, {"n_tokens": 100, "batch_rows": 0}):
        with pytest.raises(SettingError, match="whole numbers of at least 1"):
            fit(TopK(16, k=2), rows, quiet=True, **wrong)
    with pytest.raises(ShapeError, match=r"states: expected floating numbers, got torch\.int64"):
        fit(TopK(16, k=2), rows.long(), **SMALL)


def test_one_site_unless_the_preset_reads_several(rows):
    with pytest.raises(SettingError, match="top_k reads the states of one site, and 2 are named"):
        fit(TopK(16, k=2), {"residual.0": rows, "residual.1": rows}, site="residual.0+residual.1", **SMALL)
