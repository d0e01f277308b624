"""Batches are equal, complete, reproducible and can be taken up anywhere."""

from itertools import islice

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from overtone.core.sites import Site
from overtone.training.feed import Ask, MatrixFeed, Rows

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
