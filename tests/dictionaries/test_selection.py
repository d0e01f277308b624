"""Ranks and thresholds choose what they say, whatever shortcuts they take."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from overtone.core.errors import SettingError
from overtone.dictionaries.selectors.rank import Rank, places, top_indices, top_mask
from overtone.dictionaries.selectors.threshold import Threshold


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize("even", [False, True])
@settings(deadline=None, max_examples=40)
@given(rows=st.integers(1, 4), latents=st.integers(1, 100), share=st.floats(0, 1), seed=st.integers(0, 9))
def test_the_best_of_each_row_are_found_whether_or_not_scores_are_equal(dtype, even, rows, latents, share, seed):
    scores = torch.randn(rows, latents, generator=torch.Generator().manual_seed(seed)).to(dtype)
    scores = scores.round() if even else scores
    k = max(1, round(share * latents))
    places, mask = top_indices(scores, k), top_mask(scores, k)
    expected = scores.topk(k, dim=1).values.flip(1)
    assert torch.equal(scores.gather(1, places).sort(1).values, expected)
    assert places.sort(1).values.diff(dim=1).gt(0).all() and places.dtype == torch.int64
    assert mask.sum(1).tolist() == [k] * rows
    assert torch.equal(scores[mask].view(rows, k).sort(1).values, expected)


def test_what_is_no_number_ranks_first_as_torch_has_it():
    scores = torch.tensor([[1.0, torch.nan, 3.0, 2.0]])
    assert sorted(top_indices(scores, 2)[0].tolist()) == [1, 2] and top_mask(scores, 1).tolist()[0][1]


def settled(rank, scores):
    """The (rows, latents) mask that a rank chooses in company."""
    support = rank.nominate(scores, company=True)
    keep = rank.settle(support, support.take(scores))
    if keep is None:
        rank.widen()
        return settled(rank, scores)
    kept = support.kept(keep)
    return torch.zeros_like(scores, dtype=torch.bool).index_put((kept.rows, kept.latents), torch.tensor(True))


@settings(deadline=None, max_examples=40)
@given(
    rows=st.integers(1, 30), latents=st.integers(1, 40), seed=st.integers(0, 9),
    k=st.integers(1, 6) | st.floats(0.05, 6).filter(lambda k: (10 * k) % 1),
)  # fmt: skip
def test_a_batch_keeps_its_budget_of_the_best_positive_scores(rows, latents, k, seed):
    rank, generator = Rank("batch", min(k, latents)), torch.Generator().manual_seed(seed)
    for scale in (1.0, 0.1, 10.0):  # the hint of one batch is wrong for the next
        scores = scale * torch.randn(rows, latents, generator=generator)
        mask, wanted = settled(rank, scores), min(max(1, round(rank.budget * rows)), int((scores > 0).sum()))
        assert int(mask.sum()) == wanted and (scores[mask] > 0).all()
        if wanted:
            rest = scores[~mask]
            assert not len(rest) or scores[mask].min() >= rest.max()


@given(rows=st.integers(1, 10**6), k=st.floats(0.01, 100))
def test_a_fraction_of_places_is_rounded_to_the_nearest_number_above_none(rows, k):
    assert abs(places(k, rows) - k * rows) <= 0.5 or (places(k, rows) == 1 and k * rows < 0.5)
    assert places(1.4, 5 * rows) == 7 * rows and places(2, rows) == 2 * rows


def test_equal_scores_at_the_cut_go_to_earlier_places():
    mask = settled(Rank("batch", 1), torch.ones(3, 4))
    assert mask.nonzero().tolist() == [[0, 0], [0, 1], [0, 2]]


def test_alone_a_batch_rank_is_a_threshold():
    rank = Rank("batch", 1)
    rank.theta.fill_(2.0)
    support = rank.nominate(torch.tensor([[1.0, 2.0, 3.0], [2.5, 4.0, 0.0]]), company=False)
    assert list(zip(support.rows.tolist(), support.latents.tolist(), strict=True)) == [(0, 2), (1, 0), (1, 1)]


@pytest.mark.parametrize("make", [lambda: Rank("batch", 1), lambda: Threshold(3, level=0.1)])
def test_thresholds_stay_exact_in_half_precision(make):
    selection = make()
    selection.theta.fill_(0.1003)
    before = selection.theta.clone()
    selection.bfloat16()
    assert selection.theta.dtype == torch.float32 and torch.equal(selection.theta, before)
    assert selection.double().theta.dtype == torch.float64


def test_impossible_ranks_are_refused():
    with pytest.raises(SettingError, match="'row' or a 'batch'"):
        Rank("column", 1)
    for scope in ("row", "batch"):
        with pytest.raises(SettingError, match="k=0 .* more than 0"):
            Rank(scope, 0)
    with pytest.raises(SettingError, match=r"k=1.4 .* each row keeps a whole number. Use a whole k, or .* the batch"):
        Rank("row", 1.4)
    with pytest.raises(SettingError, match="only 4 latents"):
        Rank("row", 5).check(4)
