"""Semi-NMF: losses fall, codes stay non-negative, features keep their share of neurons, and that share is what makes
planted features recoverable."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn.functional import normalize

from overtone.core.errors import SettingError
from overtone.dictionaries.classic.nonnegative import NonNegative
from overtone.dictionaries.classic.semi_nmf import rescaled, semi_nmf, starts, winner_take_all
from overtone.dictionaries.presets.nmf import NMF
from overtone.dictionaries.presets.snmf import SNMF
from overtone.evaluate.reconstruction import fvu
from overtone.evaluate.recovery import planted_recovery

NEURONS, FEATURES, ROWS = 100, 6, 400


def planted(seed=0, share=0.05):
    """Rows of sparse groups of neurons with sparse non-negative codes, and the groups."""
    draw = torch.Generator().manual_seed(seed)
    groups = winner_take_all(torch.randn(FEATURES, NEURONS, generator=draw), share)
    codes = torch.rand(ROWS, FEATURES, generator=draw) * (torch.rand(ROWS, FEATURES, generator=draw) < 0.2)
    return codes @ groups + 0.02 * torch.randn(ROWS, NEURONS, generator=draw), normalize(groups, dim=1)


def begin(x, kind="random", n=FEATURES, seed=0):
    return starts(x, n, torch.Generator().manual_seed(seed))[kind]()


def test_without_winners_the_loss_never_rises():
    losses = semi_nmf(planted()[0], begin(planted()[0]), iterations=300).losses
    assert all(after <= before * (1 + 1e-9) for before, after in zip(losses, losses[1:], strict=False))


@pytest.mark.parametrize("winners", [1.0, 0.05])
def test_the_pair_returned_is_the_best_of_the_trace_and_has_its_loss(winners):
    x, _ = planted()
    fit = semi_nmf(x, begin(x), winners=winners, iterations=150)
    assert float((x - fit.codes @ fit.features).square().sum()) == pytest.approx(fit.loss, rel=1e-6)
    assert fit.codes.min() >= 0 and fit.features.min() < 0 < fit.features.max()


def test_each_feature_keeps_its_share_of_neurons_and_the_first_of_equal_ones():
    fit = semi_nmf(planted()[0], begin(planted()[0]), winners=0.043, iterations=20)
    assert ((fit.features != 0).sum(1) == math.ceil(0.043 * NEURONS)).all()
    assert winner_take_all(torch.ones(2, 8), 0.25).tolist() == [[1, 1, 0, 0, 0, 0, 0, 0]] * 2


@given(width=st.integers(1, 500), part=st.floats(0, 1, exclude_min=True))
def test_a_share_that_is_a_whole_number_of_neurons_keeps_so_many(width, part):
    n = max(1, round(part * width))
    assert (winner_take_all(torch.ones(1, width), n / width) != 0).sum() == n
    more = (n - 0.5) / width
    assert (winner_take_all(torch.ones(1, width), more) != 0).sum() == n


@pytest.mark.parametrize(("share", "width", "n"), [(0.07, 100, 7), (0.14, 50, 7), (0.28, 25, 7), (0.55, 100, 55)])
def test_rounding_keeps_no_neuron_too_many(share, width, n):
    assert (winner_take_all(torch.ones(1, width), share) != 0).sum() == n


def test_rescaling_leaves_the_product_alone():
    g, z = torch.rand(9, 4, dtype=torch.float64), torch.randn(4, 5, dtype=torch.float64)
    torch.testing.assert_close(torch.matmul(*rescaled(g, z)), g @ z, rtol=1e-9, atol=1e-12)


def test_the_winners_make_planted_features_recoverable_not_the_fit():
    """Median over seeds: at the true share the features come back; without it the fit is better and they do not."""
    shares, free, errors = [], [], []
    for seed in range(3):
        x, truth = planted(seed)
        draw = torch.Generator().manual_seed(seed)
        at_share = SNMF(FEATURES, winners=0.05, iterations=400, restarts=5).fitted(x, draw)
        without = SNMF(FEATURES, winners=1.0, iterations=400).fitted(x, draw)
        shares.append(planted_recovery(at_share.atoms(), truth).share)
        free.append(planted_recovery(without.atoms(), truth).share)
        errors.append((fvu(x, without.reconstruct(x)), fvu(x, at_share.reconstruct(x))))
    assert sorted(shares)[1] >= 0.9 and sorted(free)[1] <= 0.2
    assert sorted(e[0] for e in errors)[1] < 0.03


def test_too_few_winners_cannot_fit():
    x, _ = planted()
    few, true = (SNMF(FEATURES, winners=w, iterations=200, restarts=2) for w in (0.01, 0.05))
    draw = torch.Generator().manual_seed(0)
    assert few.factorised(x, draw).loss > 4 * true.factorised(x, draw).loss


@pytest.mark.parametrize("kind", ["random", "k_means", "svd"])
def test_every_start_gives_codes_that_can_move(kind):
    x, _ = planted()
    g = begin(x, kind)
    assert g.shape == (ROWS, FEATURES) and (g > 0).all(), "a code of exactly 0 would stay 0 for ever"
    fit = SNMF(FEATURES, start=kind, iterations=60).factorised(x, torch.Generator().manual_seed(0))
    assert fit.loss < fit.losses[0]


def test_new_states_are_encoded_at_least_as_well_as_the_fit_encoded_its_own():
    x, _ = planted()
    preset = SNMF(FEATURES, iterations=200)
    fit = preset.factorised(x, torch.Generator().manual_seed(0))
    made = preset.fitted(x, torch.Generator().manual_seed(0))
    scale = float(x.double().square().mean())
    assert float((x - made.reconstruct(x)).square().sum()) <= fit.loss * scale * (1 + 1e-5)
    assert made.encode(2 * x).values.min() >= 0


def test_nmf_parts_are_not_negative_and_states_may_be():
    draw = torch.Generator().manual_seed(0)
    parts = torch.rand(4, 30, generator=draw) * (torch.rand(4, 30, generator=draw) < 0.3)
    codes = torch.rand(300, 4, generator=draw) * (torch.rand(300, 4, generator=draw) < 0.5)
    made = NMF(4).fitted(codes @ parts, draw)
    assert made.atoms().min() >= 0 and planted_recovery(made.atoms(), parts).share == 1
    shifted = NMF(4).fitted(codes @ parts - 3, draw)
    assert fvu(codes @ parts - 3, shifted.reconstruct(codes @ parts - 3)) < 0.05


def test_nmf_misses_about_as_little_as_scikit_learns():
    """An independent solver, run to its end on the same rows."""
    from sklearn.decomposition import NMF as Factoriser

    draw = torch.Generator().manual_seed(0)
    x = torch.rand(400, 12, generator=draw) @ torch.rand(12, 20, generator=draw) + torch.rand(400, 20, generator=draw)
    x = x - x.amin(0)
    reference = Factoriser(6, init="nndsvda", max_iter=600, tol=0).fit(x.numpy()).components_
    theirs = NonNegative.of(torch.from_numpy(reference).float())
    ours = NMF(6).fitted(x, draw)
    assert fvu(x, ours.reconstruct(x)) < 1.05 * fvu(x, theirs.reconstruct(x))


def test_nmf_goes_through_many_rows_in_batches_and_revives_what_is_unused():
    draw = torch.Generator().manual_seed(1)
    parts = torch.rand(4, 30, generator=draw) * (torch.rand(4, 30, generator=draw) < 0.3)
    codes = torch.rand(3000, 4, generator=draw) * (torch.rand(3000, 4, generator=draw) < 0.5)
    x = codes @ parts
    x[:1500] = 0.0  # half of what the parts start from
    made = NMF(8, iterations=60).fitted(x, draw)
    assert planted_recovery(made.atoms(), parts).share == 1 and (made.atoms().norm(dim=1) > 0.99).all()


def test_snmf_may_look_at_some_rows_only():
    x, _ = planted()
    some = SNMF(FEATURES, iterations=5, rows=50).factorised(x, torch.Generator().manual_seed(0))
    assert some.codes.shape == (50, FEATURES)


def test_settings_that_cannot_be_are_refused():
    with pytest.raises(SettingError, match=r"winners=0.*\(0, 1\]"):
        SNMF(4, winners=0.0)
    with pytest.raises(SettingError, match="Did you mean 'k_means'"):
        SNMF(4, start="kmeans")
