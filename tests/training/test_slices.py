"""Sums by latent that are made slice by slice are those made row by row, to the bit, and so are updates by them."""

from contextlib import nullcontext

import pytest
import torch

from overtone.dictionaries.codes import Support
from overtone.dictionaries.kernels import memory, sparse, trial
from overtone.dictionaries.kernels.compiler import BuildError
from overtone.dictionaries.kernels.kept import Squares, kept
from overtone.dictionaries.kernels.native import MACHINE, Native
from overtone.dictionaries.kernels.native_update import NativeUpdate
from overtone.dictionaries.kernels.trial import TRIES, Slices
from overtone.dictionaries.kernels.update import Moments
from overtone.dictionaries.kernels.waiting import Rows, Sums
from overtone.dictionaries.lengths import typical

ROWS, LATENTS, K = 70, 45, 9
CACHE = f"-DSECOND_CACHE={4 * 64 * ROWS}"  # just enough for a slice of so many rows
FEW = "-DTOGETHER_LATENTS=1000"  # numbers of sums that are made before they are used


@pytest.fixture(scope="module", params=[MACHINE, "-O3"])
def kernels(request):
    """Kernels that may take slices, as they are told that the cache is so small."""
    try:
        return Native(request.param, CACHE, FEW)
    except BuildError as error:
        pytest.skip(f"no compiled kernels here: {error}")


class Always:
    """One way, whichever is faster."""

    def __init__(self, by_slice):
        self.by_slice = by_slice

    def way(self, use, n_rows, width, places):
        return nullcontext(self.by_slice)


def places(width, seed=0):
    draw = torch.Generator().manual_seed(seed)
    latents = torch.rand(ROWS, LATENTS, generator=draw).topk(K, dim=1).indices.sort(dim=1).values
    latents[latents == 7] = 8  # a latent without places, and some that are there twice
    at = Support.from_indices(latents, LATENTS)
    return torch.randn(ROWS * K, generator=draw), torch.randn(ROWS, width, generator=draw), at


@pytest.fixture(params=[1, 2])
def threads(request):
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield request.param
    torch.set_num_threads(before)


@pytest.mark.parametrize("width", [65, 100, 128, 300])
def test_they_are_the_same_sums(kernels, threads, width, monkeypatch):
    values, states, at = places(width)
    found = []
    for by_slice in (True, False):
        monkeypatch.setattr(kernels, "slices", Always(by_slice))
        found.append(kernels.sum_by_latent(values, states, at))
    (sliced, totals), (plain, expected) = found
    assert torch.equal(sliced, plain) and torch.equal(totals, expected)
    truth = torch.zeros(LATENTS, width, dtype=torch.float64)
    truth.index_add_(0, at.latents, values.double().unsqueeze(1) * states.double()[at.rows])
    torch.testing.assert_close(sliced.double(), truth, rtol=1e-5, atol=1e-5)


def test_places_are_sorted_by_latent_as_by_a_general_sort(kernels):
    _, _, at = places(20)
    for some in (at, at.taken(torch.arange(11, len(at.latents) - 9)), at.taken(torch.arange(0))):
        expected = some._transposed()
        some.transposed_by(kernels._by_latent)
        for found, right in zip(some.by_latent, expected, strict=True):
            assert found.dtype == right.dtype and torch.equal(found, right)


@pytest.mark.parametrize("rows", [1, 63, 64, 65, ROWS])
def test_a_reconstruction_knows_by_how_much_it_misses_in_each_column(kernels, threads, rows):
    values, target, at = places(37)
    at, values, target = at.taken(torch.arange(rows * K)), values[: rows * K], target[:rows]
    at = Support.from_indices(at.latents.view(rows, K), LATENTS)
    weight, constant = torch.randn(LATENTS, 37, generator=torch.Generator().manual_seed(3)), torch.ones(37)
    found = kernels.towards(values, weight, constant, target, at)
    torch.testing.assert_close(found.missed, sparse.TORCH.bags(values, weight, at) + constant - target)
    torch.testing.assert_close(found.columns, found.missed.double().sum(0).float(), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("width", [65, 100, 128, 300])
def test_torch_makes_the_same_sums(width, monkeypatch):
    values, states, at = places(width)
    found = []
    for by_slice in (True, False):
        monkeypatch.setattr(sparse.TORCH, "slices", Always(by_slice))
        found.append(sparse.TORCH.sum_by_latent(values, states, at))
    assert all(torch.equal(a, b) for a, b in zip(*found, strict=True))
    truth = torch.zeros(LATENTS, width, dtype=torch.float64)
    truth.index_add_(0, at.latents, values.double().unsqueeze(1) * states.double()[at.rows])
    torch.testing.assert_close(found[0][0].double(), truth, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("block", [1, 16, 64, ROWS])
@pytest.mark.parametrize("per_row", [True, False])
def test_torch_makes_the_same_products_for_some_states_at_a_time(block, per_row, monkeypatch):
    _, states, at = places(20)
    if not per_row:
        at = at.taken(torch.arange(11, len(at.latents) - 9))  # the first and the last row have none
    taken, blocks = [], Support.blocks
    monkeypatch.setattr(Support, "blocks", lambda self, size: taken.append(size) or blocks(self, size))
    monkeypatch.setattr(sparse, "NEAR", 4 * 20 * block)
    monkeypatch.setattr(sparse, "ALSO", 0)
    weight = torch.randn(LATENTS, 20, generator=torch.Generator().manual_seed(2))
    found = sparse.TORCH.products(states, weight, at)
    assert taken == [block]
    torch.testing.assert_close(found, (states[at.rows] * weight[at.latents]).sum(1))


def test_the_number_of_places_does_not_change_what_memory_is_kept(kernels, monkeypatch):
    monkeypatch.setattr(kernels, "slices", Always(True))
    monkeypatch.setattr(memory, "SMALL", 0)
    values, states, at = places(100)
    kernels.sum_by_latent(values, states, at)
    before = set(memory._local.pool.kept)
    for n in (100, 300, 500):
        some = at.taken(torch.arange(n))
        kernels.sum_by_latent(values[:n], states, some)
    assert set(memory._local.pool.kept) == before


@pytest.mark.parametrize("unit", [False, True])
@pytest.mark.parametrize("width", [100, 128])
def test_updates_by_them_are_the_same(kernels, threads, unit, width):
    values, states, at = places(width)
    more = Rows(torch.tensor([3, 7, 40]), torch.ones(3, width))
    found = []
    for by_slice in (True, False):
        update, draw = NativeUpdate(kernels.library), torch.Generator().manual_seed(1)
        update.slices = Always(by_slice)
        parameter = torch.nn.functional.normalize(torch.randn(LATENTS, width, generator=draw), dim=1)
        mean, square = torch.zeros(LATENTS, width), torch.zeros(LATENTS, width)
        one = Moments(parameter, torch.empty(0), mean, square, torch.tensor(0.0))
        one.unit = unit
        for rows in (None, more):
            update.adam_of_sums(one, Sums(kernels, values, states, at, 1.0, rows), 1e-2, (0.9, 0.999))
        found.append((one.parameter, one.mean, one.square))
    assert all(torch.equal(a, b) for a, b in zip(*found, strict=True))


@pytest.mark.parametrize(
    ("rows", "width", "n", "why"),
    [(ROWS, 64, 10**4, "all of it fits"), (ROWS + 1, 100, 10**4, "no slice fits"), (ROWS, 100, ROWS, "few places")],
)
def test_where_they_would_take_longer_they_are_not_tried(kernels, rows, width, n, why):
    assert kernels.slices.possible(ROWS, 100, 10**4)
    with kernels.slices.way("use", rows, width, n) as by_slice:
        assert not by_slice, why
    assert not kernels.slices.trials


def test_both_ways_are_tried_in_turns_and_then_the_faster_one_is_taken(monkeypatch):
    now = [0.0]
    monkeypatch.setattr(trial, "perf_counter", lambda: now[0])
    for slower in (False, True):
        slices, taken = Slices(lambda *sizes: 1), []
        for _ in range(2 * TRIES + 3):
            with slices.way("use", 1, 2, 3) as way:
                taken.append(way)
                now[0] += 2.0 if way == slower else 1.0
        assert taken == [False, True] * TRIES + [not slower] * 3
        with slices.way("use", 2, 2, 3) as way:
            assert not way, "other sizes are tried anew"


def test_an_update_of_unit_rows_leaves_their_typical_length_until_they_change(kernels, threads):
    values, states, at = places(100)
    rows = torch.nn.Parameter(torch.nn.functional.normalize(torch.randn(LATENTS, 100), dim=1))
    mean, square = torch.zeros(LATENTS, 100), torch.zeros(LATENTS, 100)
    one, update = Moments(rows, torch.empty(0), mean, square, torch.tensor(0.0), True), NativeUpdate(kernels.library)
    assert kept(Squares, rows) is None
    with torch.no_grad():
        rows[3] = 0  # shorter than what is brought to length one
    update.adam_of_sums(one, Sums(kernels, 0 * values, states, at, 1.0), 1e-2, (0.9, 0.999))
    found = kept(Squares, rows.detach())
    assert found is not None and found.found.sum == pytest.approx(LATENTS - 1, rel=1e-6)
    torch.testing.assert_close(typical(rows.detach()), rows.detach().square().sum(1).mean().sqrt())
    one.unit, one.gradient = False, torch.ones_like(rows)
    update.adam([one], 1e-2, (0.9, 0.999), None)
    assert kept(Squares, rows) is None
    update.adam_of_sums(one, Sums(kernels, values, states, at, 1.0), 1e-2, (0.9, 0.999))
    assert kept(Squares, rows) is None, "they are not of length one"
    torch.testing.assert_close(typical(rows.detach()), rows.detach().square().sum(1).mean().sqrt())
    update.to_length_one(rows.detach())
    assert typical(rows.detach()) == 1, "to the bit, known or not"
    one.unit = True
    update.adam_of_sums(one, Sums(kernels, values, states, at, 1.0), 1e-2, (0.9, 0.999))
    assert kept(Squares, rows) is not None and typical(rows.detach()) == 1


@pytest.mark.parametrize("rows", [1, 63, 64, 65, 200])
def test_a_matrix_is_added_up_in_bags_that_threads_share(kernels, threads, rows):
    weight, values = torch.randn(rows, 37), torch.randn(rows)
    for products in (kernels, sparse.TORCH):
        found = sparse._weighted(products, values, weight)
        torch.testing.assert_close(found, (values.double() @ weight.double()).float(), rtol=1e-4, atol=1e-4)
