"""Comparisons: equal rows for all, one trial per seed, and intervals that widen with fewer seeds."""

import copy
from dataclasses import replace

import numpy as np
import pytest
import torch

from overtone.core.errors import DataError, SettingError
from overtone.data.synthetic import plant
from overtone.dictionaries.presets.pca import PCA
from overtone.dictionaries.presets.random_directions import RandomDirections
from overtone.dictionaries.presets.top_k import TopK
from overtone.evaluate.compare import Comparison, Sample, compare
from overtone.evaluate.intervals import over_seeds

SEEDS = (0, 1, 2)


def planted(seed):
    truth = plant(24, 16, max_cosine=0.6, seed=seed)
    x = truth.sample(3000, active=2, seed=seed, noise=0.02).x
    return Sample(x[:2000], x[2000:], truth.atoms)


@pytest.fixture(scope="module")
def found():
    presets = {"top_k": TopK(32, k=2), "random": RandomDirections(32, k=2), "pca": PCA(16)}
    return compare(
        presets, planted, seeds=SEEDS, n_tokens=60_000, batch_rows=250, lr=4e-3,
        also=lambda dictionary, rows: {"rows": float(len(rows.held_out))},
    )  # fmt: skip


def test_every_name_has_a_trial_per_seed_and_keeps_its_place(found):
    assert found.names == ("top_k", "random", "pca")
    assert all([t.seed for t in found.of(name)] == list(SEEDS) for name in found.names)
    assert found.values("pca", "rows").tolist() == [1000.0] * 3


def test_learned_atoms_beat_random_ones_on_planted_data_in_every_measure(found):
    assert found.mean("top_k", "recovered").value > 0.8 > 0.2 > found.mean("random", "recovered").value
    gap = found.difference("random", "top_k", "fvu")
    assert gap.low > 0 and gap.value == pytest.approx(
        found.mean("random", "fvu").value - found.mean("top_k", "fvu").value
    )
    assert found.mean("top_k", "l0").value <= 2


def test_a_finding_holds_only_if_the_interval_of_the_difference_says_so(found):
    good = found.against("a.error", "learned atoms explain more", "top_k", "random", "fvu")
    assert good.holds is True and good.measured < good.control and good.n_of == "seeds"
    assert found.against("a.error", "random atoms do", "random", "top_k", "fvu").holds is False
    assert found.against("a.same", "no difference", "top_k", "top_k", "fvu").holds is False
    assert found.against("a.found", "more atoms", "top_k", "random", "recovered", better="higher").holds is True


def test_what_more_active_latents_may_have_paid_for_is_no_finding(found):
    bought = found.against("a.error", "a complete basis explains more", "pca", "top_k", "fvu")
    assert bought.measured < bought.control and bought.holds is None
    assert "not at equal L0 (16 against 2)" in bought.note
    assert found.against("a.error", "", "pca", "top_k", "fvu", any_l0=True).holds is True
    worse = found.against("a.error", "few active latents explain less", "top_k", "pca", "fvu", better="higher")
    assert worse.holds is None and found.against("a.error", "", "top_k", "pca", "fvu").holds is None


def test_that_holds_for_every_measure_and_for_what_fewer_latents_did_not_reach(found):
    """`rows` is equal for all, so no claim about it holds; `size` is what the names' L0 gives."""
    sized = found.with_measure("size", lambda trial: trial.measures["l0"] + 0.01 * trial.seed)
    assert sized.against("a.size", "", "pca", "top_k", "size", better="higher").holds is None
    assert sized.against("a.size", "", "top_k", "pca", "size", better="higher").holds is None
    assert sized.against("a.size", "", "pca", "top_k", "size").holds is False, "more latents do not excuse a loss"
    assert sized.against("a.size", "", "top_k", "pca", "size").holds is True, "nor do fewer take a win away"


def test_a_complete_basis_reconstructs_everything(found):
    assert found.mean("pca", "fvu").value < 1e-8


def test_seeds_of_the_same_rows_agree_more_than_seeds_of_different_truth(found):
    same = compare(
        {"top_k": TopK(32, k=2)}, lambda _: planted(0), seeds=SEEDS, n_tokens=60_000, batch_rows=250, lr=4e-3
    )
    assert same.stability("top_k") > found.stability("top_k") + 0.1


def test_the_table_is_plain_numbers(found):
    rows = found.table()
    assert [row["name"] for row in rows] == list(found.names)
    assert all(isinstance(row["fvu"], float) and row["seeds"] == 3 and row["fvu +-"] >= 0 for row in rows)


def test_what_was_not_compared_is_refused_by_name(found):
    with pytest.raises(SettingError, match="there are top_k, random, pca"):
        found.of("nmf")
    with pytest.raises(SettingError, match="has no 'speed'"):
        found.values("pca", "speed")
    with pytest.raises(SettingError, match="at least one"):
        compare({}, planted, seeds=SEEDS, n_tokens=10)


def test_the_interval_over_seeds_covers_the_truth_as_often_as_it_says():
    draws = np.random.default_rng(0).normal(3.0, 2.0, size=(2000, 5))
    covered = np.mean([e.low <= 3.0 <= e.high for e in map(over_seeds, draws)])
    assert 0.93 < covered < 0.97
    assert over_seeds([1.5]).interval is None
    with pytest.raises(DataError, match="finite value per seed"):
        over_seeds([1.0, float("nan")])


def test_rows_without_truth_have_no_recovery():
    x = torch.randn(400, 8, generator=torch.Generator().manual_seed(0))
    one = compare({"pca": PCA(4)}, lambda _: Sample(x[:300], x[300:]), seeds=(0,), n_tokens=300).of("pca")[0]
    assert set(one.measures) == {"fvu", "l0", "dead_share"}


def test_the_polarity_of_a_signed_latent_says_nothing_about_stability():
    found = compare({"pca": PCA(16)}, lambda _: planted(0), seeds=(0, 1), n_tokens=2000)
    first, second = found.trials
    flipped = copy.deepcopy(second.dictionary)
    flipped.decoder.weight.data[::2] *= -1
    assert Comparison((first, replace(second, dictionary=flipped))).stability("pca") == pytest.approx(1, abs=1e-5)
