"""The one path of ordering: every row once per epoch, exact batches, an order that only seed and sequence decide."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from overtone.activations.source import gathered, in_bytes, ordered_batches, recut
from overtone.core.batch import ActivationBatch, Where
from overtone.core.errors import DataError, SettingError
from overtone.core.sites import Site

SITE = Site("residual", 0)


def batch(documents):
    """Rows that carry their document and number, so that a mix-up of states and origins shows."""
    rows = [(d, i) for d, n in documents for i in range(n)]
    document, token = (torch.tensor([r[k] for r in rows], dtype=torch.int64) for k in (0, 1))
    return ActivationBatch({SITE: torch.stack([document, token], 1).float()}, Where(document, token, -token))


def reader(counts, per_piece):
    """Reads documents in order, so many per piece."""

    def read(documents):
        documents = list(documents)
        for i in range(0, len(documents), per_piece):
            yield batch([(d, counts[d]) for d in documents[i : i + per_piece]])

    return read


def pairs(batches):
    found = []
    for b in batches:
        assert torch.equal(b.x[SITE], torch.stack([b.where.document, b.where.token], 1).float())
        assert torch.equal(b.where.step, -b.where.token)
        found += [tuple(row) for row in b.x[SITE].int().tolist()]
    return found


COUNTS = st.lists(st.integers(0, 9), min_size=1, max_size=12).filter(sum)


@settings(deadline=None, max_examples=50)
@given(COUNTS, st.integers(1, 20), st.integers(1, 5), st.integers(2, 40), st.integers(1, 3))
def test_batches_are_exact_and_every_row_comes_once_per_epoch(counts, rows, per_piece, buffer_rows, epochs):
    made = list(
        ordered_batches(reader(counts, per_piece), len(counts), rows, seed=3, epochs=epochs, buffer_rows=buffer_rows)
    )
    assert all(len(b) == rows for b in made[:-1]) and 0 < len(made[-1]) <= rows
    found, every = pairs(made), sorted((d, i) for d, n in enumerate(counts) for i in range(n))
    n = sum(counts)
    assert [sorted(found[e * n : (e + 1) * n]) for e in range(epochs)] == [every] * epochs


@settings(deadline=None, max_examples=50)
@given(COUNTS, st.integers(1, 20), st.integers(1, 5), st.integers(2, 40))
def test_the_order_does_not_depend_on_how_the_rows_are_read(counts, rows, per_piece, buffer_rows):
    def order(per_piece, rows):
        read = reader(counts, per_piece)
        return pairs(ordered_batches(read, len(counts), rows, seed=1, epochs=2, buffer_rows=buffer_rows))

    assert order(per_piece, rows) == order(1, 7)


def test_without_a_seed_rows_keep_the_order_of_documents_and_with_one_they_lose_it():
    counts = [5] * 30

    def order(seed, epochs=1, buffer_rows=20):
        read = reader(counts, 4)
        return pairs(ordered_batches(read, 30, 8, seed=seed, epochs=epochs, buffer_rows=buffer_rows))

    plain = [(d, i) for d in range(30) for i in range(5)]
    assert order(None, epochs=2) == plain * 2
    one, two = order(0, epochs=2)[:150], order(0, epochs=2)[150:]
    assert one != plain and one != two and order(0) == one != order(1)
    neighbours = sum(a[0] == b[0] for a, b in zip(one, one[1:], strict=False))
    assert neighbours < 60  # in document order it is 120 of 149


def test_the_buffer_bounds_how_many_documents_are_read_ahead():
    read_so_far = []

    def read(documents):
        for d in documents:
            read_so_far.append(d)
            yield batch([(d, 10)])

    batches = ordered_batches(read, 100, 5, seed=0, epochs=1, buffer_rows=40)
    next(batches)
    assert len(read_so_far) <= 5


def test_recut_keeps_rows_and_order():
    pieces = [batch([(0, 3)]), batch([(1, 0)]), batch([(2, 7)]), batch([(3, 1)])]
    assert [len(b) for b in recut(pieces, 4)] == [4, 4, 3]
    assert pairs(recut(pieces, 4)) == pairs(pieces)


def test_gathering_refuses_what_is_too_large_before_anything_is_read():
    def pieces():
        raise AssertionError("read")
        yield

    with pytest.raises(DataError, match=r"1000 rows take 31 KiB, more than the 100 B allowed"):
        gathered(pieces(), 1000, {SITE: 2}, most_bytes=100)


def test_gathering_notices_missing_rows():
    with pytest.raises(DataError, match="3 rows came, 4 were announced"):
        gathered([batch([(0, 3)])], 4, {SITE: 2})


def test_counts_below_one_are_refused():
    with pytest.raises(SettingError, match="at least 1, 1 and 2"):
        ordered_batches(reader([1], 1), 1, 0, seed=None, epochs=1, buffer_rows=2)


def test_bytes_are_written_as_people_read_them():
    assert [in_bytes(n) for n in (5, 999, 2048, 5 << 30, 300 << 20)] == [
        "5 B",
        "999 B",
        "2.0 KiB",
        "5.0 GiB",
        "300 MiB",
    ]
