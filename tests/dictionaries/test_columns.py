"""A rank over columns spends its budget as it says, whatever hints it goes by."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from overtone.core.errors import SettingError
from overtone.dictionaries.codes import Support
from overtone.dictionaries.selectors.columns import Columns


def settled(columns, scores, block=None):
    """The (rows, latents) mask that a rank over columns chooses in company, nominating some rows at a time."""
    parts = [columns.nominate(rows, company=True) for rows in scores.split(block or len(scores))]
    support = Support.joined(parts)
    keep = columns.settle(support, support.take(scores))
    if keep is None:
        columns.widen()
        return settled(columns, scores, block)
    kept = support.kept(keep)
    return torch.zeros_like(scores, dtype=torch.bool).index_put((kept.rows, kept.latents), torch.tensor(True))


def by_hand(scores, wanted):
    """The m_i largest positive entries of each column, by sorting it."""
    rank = scores.argsort(0, descending=True).argsort(0)
    return (rank < wanted) & (scores > 0)


@settings(deadline=None, max_examples=40)
@given(rows=st.integers(1, 60), latents=st.integers(1, 12), k=st.integers(1, 4), seed=st.integers(0, 9))
def test_each_latent_keeps_its_best_rows(rows, latents, k, seed):
    generator = torch.Generator().manual_seed(seed)
    columns = Columns(latents, min(k, latents))
    for scale in (1.0, 0.1, 10.0):  # the hint of one batch is wrong for the next
        columns.share.copy_(columns.share * torch.rand(latents, generator=generator).clamp(min=0.1))
        scores = scale * torch.randn(rows, latents, generator=generator)
        assert torch.equal(settled(columns, scores, 7), by_hand(scores, columns.grants(rows)))


@settings(deadline=None, max_examples=40)
@given(
    rows=st.integers(1, 50), latents=st.integers(1, 40), k=st.integers(1, 5) | st.floats(0.1, 5), seed=st.integers(0, 9)
)
def test_the_budget_is_spent_to_the_last_row_where_scores_are_positive(rows, latents, k, seed):
    generator = torch.Generator().manual_seed(seed)
    columns = Columns(latents, min(k, latents))
    scores = torch.rand(rows, latents, generator=generator) + 0.1
    mask = settled(columns, scores)
    assert int(mask.sum()) == max(1, round(columns.budget * rows)) and torch.equal(mask.sum(0), columns.grants(rows))


def test_a_share_below_one_row_is_given_in_some_batches():
    columns = Columns(50, 1)
    columns.share.copy_(torch.linspace(0.1, 1.9, 50) / 50)
    given_rows = torch.zeros(50)
    for _ in range(1000):
        given_rows += columns.grants(20)
        columns.phase.add_(0.618034).remainder_(1.0)
    torch.testing.assert_close(given_rows / 20_000, columns.share, rtol=0.03, atol=2e-4)


def test_cuts_lie_between_the_last_kept_and_the_first_dropped():
    columns = Columns(2, 1)
    scores = torch.tensor([[5.0, -1.0], [3.0, 2.0], [1.0, -1.0], [0.5, -2.0]])
    settled(columns, scores)  # two rows each; the second has one positive score only
    assert columns.cuts.tolist() == [2.0, 0.0]


@pytest.mark.parametrize("share", [0.1, 0.3, 0.8])
def test_thresholds_of_latents_with_less_than_a_row_are_passed_as_often_as_they_may(share, generator):
    """The mean cut of scores whose tail is exponential; `share`: rows of a batch that each latent is given."""
    rows, batches = 16, 1500
    columns, mean = Columns(40, 1), torch.zeros(40)
    columns.share.fill_(share / rows)
    columns.grants = lambda n: (
        (torch.arange(1, 41) * share + columns.phase).floor().long().diff(prepend=columns.phase.floor().long()[None])
    )
    for _ in range(batches):
        settled(columns, -torch.rand(rows, 40, generator=generator).log())
        mean += columns.cuts / batches
        columns.phase.add_(0.618034).remainder_(1.0)
    passed = torch.exp(-mean) * rows  # in a batch
    assert passed.mean() == pytest.approx(share, rel=0.15)


def test_cuts_do_not_depend_on_what_was_seen_before():
    """Else a resumed training, which has no hints yet, would end elsewhere."""
    generator = torch.Generator().manual_seed(0)
    seasoned, scores = Columns(40, 3), torch.randn(60, 40, generator=generator)
    seasoned._hint = torch.full((40,), 1.2)  # in some columns exactly as many scores lie above as are wanted
    fresh = Columns(40, 3)
    assert torch.equal(settled(seasoned, scores), settled(fresh, scores)) and torch.equal(seasoned.cuts, fresh.cuts)


def test_more_than_all_latents_are_refused():
    with pytest.raises(SettingError, match="only 3 latents"):
        Columns(3, 4).check(3)


def test_processes_that_see_other_rows_start_from_the_same_hint():
    """`widen` before the first batch, as sharing does: what is nominated then depends on no sample."""
    scores = torch.randn(40, 6, generator=torch.Generator().manual_seed(0))
    selection = Columns(6, 2)
    selection.widen()
    nominees = selection.nominate(scores[:7], company=True)
    assert len(nominees.rows) == int((scores[:7] > 0).sum())
    assert selection.rule(lambda: scores, scores).shift.abs().sum() == 0
