"""Batches are equal, complete, reproducible and can be taken up anywhere."""

from itertools import islice

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from overtone.core.batch import ActivationBatch, Where
from overtone.core.sites import Site
from overtone.training.feed import FIRST_ROWS, Ask, MatrixFeed, Rows, SourceFeed

ONE, OTHER = Ask(), Ask((Site("residual", 1),))


def matrix(n):
    return torch.arange(float(n)).unsqueeze(1)


@settings(deadline=None)
@given(n=st.integers(1, 20), batch=st.integers(1, 25), epochs=st.integers(1, 4))
def test_each_epoch_holds_each_row_once(n, batch, epochs):
    feed = MatrixFeed({ONE: Rows(matrix(n))}, batch, seed=0)
    rows = torch.cat([b[ONE].x for b in islice(feed.batches(), 1 + epochs * n // feed.batch_rows)]).view(-1)
    for epoch in rows[: epochs * n].split(n):
        assert sorted(epoch.tolist()) == list(range(n))


@settings(deadline=None)
@given(n=st.integers(1, 20), batch=st.integers(1, 25), at=st.integers(0, 6))
def test_a_feed_goes_on_where_another_one_stopped(n, batch, at):
    first, second = (MatrixFeed({ONE: Rows(matrix(n))}, batch, seed=3) for _ in range(2))
    expected = [b[ONE].x for b in islice(first.batches(), at + 3)]
    stopped = MatrixFeed({ONE: Rows(matrix(n))}, batch, seed=3)
    for _ in islice(stopped.batches(), at):
        pass
    second.position = stopped.position
    assert all(torch.equal(a, b[ONE].x) for a, b in zip(expected[at:], second.batches(), strict=False))


def test_rows_of_several_sites_and_their_targets_stay_together():
    feed = MatrixFeed({ONE: Rows(matrix(10), 2 * matrix(10)), OTHER: Rows(-matrix(10))}, 4, seed=0)
    for batch in islice(feed.batches(), 6):
        assert torch.equal(batch[ONE].x, -batch[OTHER].x) and torch.equal(batch[ONE].y, 2 * batch[ONE].x)


class Counted:
    """A source of rows 0 to n - 1 that counts what it computes."""

    sites = (Site("residual", 0),)

    def __init__(self, n):
        self.n, self.computed = n, 0

    def batches(self, rows, *, seed=None, epochs=1):
        for places in torch.randperm(self.n, generator=torch.Generator().manual_seed(seed % 2**31)).split(rows):
            self.computed += len(places)
            yield ActivationBatch({self.sites[0]: matrix(self.n)[places]}, Where(places, 0 * places, 0 * places))


@settings(deadline=None)
@given(n=st.integers(1, 40), batch=st.integers(1, 25), looked=st.integers(1, 60), at=st.integers(0, 3))
def test_what_a_feed_looked_at_before_the_training_is_not_computed_again(n, batch, looked, at):
    """And neither looking nor where the training starts changes what comes."""
    plain, source = SourceFeed(Counted(n), [ONE], batch, seed=1), Counted(n)
    feed = SourceFeed(source, [ONE], batch, seed=1)
    for _ in range(2):
        assert feed.widths() == {ONE: (1,)}
        assert torch.equal(feed.sample(ONE, looked).x.view(-1), feed.origins(looked).document.float())
    per_epoch = -(-n // batch)
    at = min(at, per_epoch - 1)
    feed.position, plain.position = {"epoch": 0, "batch": at}, {"epoch": 0, "batch": at}
    for mine, theirs in zip(islice(feed.batches(), per_epoch - at), plain.batches(), strict=False):
        assert torch.equal(mine[ONE].x, theirs[ONE].x)
    assert source.computed == n


def test_a_look_at_more_rows_than_are_kept_holds_nothing():
    source = Counted(FIRST_ROWS + 10)
    feed = SourceFeed(source, [ONE], 1000, seed=1)
    assert len(feed.sample(ONE, FIRST_ROWS + 5).x) == FIRST_ROWS + 5
    next(feed.batches())
    assert source.computed == source.n + 1000
