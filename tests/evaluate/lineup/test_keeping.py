"""A lineup keeps what is finished: an interrupted one goes on, another one shares what is the same, nothing else is
shared."""

import itertools

import pytest
import torch

import overtone.evaluate.lineup.lineup as module
from overtone.core.errors import SettingError
from overtone.evaluate.compare import Sample
from overtone.evaluate.lineup import costs
from overtone.evaluate.lineup.entrants import entrants
from overtone.evaluate.lineup.shelf import Order, Shelf, fingerprint

NAMES = ("top_k", "pca", "nmf")
SIZE = {"n_latents": 16, "ks": (2,), "seeds": (0, 1), "n_tokens": 1200, "batch_rows": 100, "rounds": 5}


def sample(seed):
    draw = torch.Generator().manual_seed(seed)
    x = torch.randn(400, 8, generator=draw) @ torch.randn(8, 8, generator=torch.Generator().manual_seed(9))
    return Sample(x[:300], x[300:])


@pytest.fixture
def trained(monkeypatch):
    """Names and seeds of the trainings that were begun; `trained.stop_at` interrupts the one of that number."""

    class Trained(list):
        stop_at = None

    seen, real = Trained(), module.trial

    def watched(name, preset, rows, seed, **options):
        seen.append((name, seed))
        if len(seen) == seen.stop_at:
            raise KeyboardInterrupt
        return real(name, preset, rows, seed, **options)

    monkeypatch.setattr(module, "trial", watched)
    return seen


def run(keep, names=NAMES, of=sample, **changed):
    return module.lineup(of, names=names, keep=keep, quiet=True, **(SIZE | changed))


def numbers(found):
    return {one.name: (one.fvu, one.l0, one.dead_share, one.stability) for one in found.standings}


def test_a_device_is_part_of_what_a_training_is_found_by_and_one_that_is_not_there_is_an_error(tmp_path):
    (entrant, *_), _ = entrants(["top_k"], 16, 2, width=8, rounds=5, gradients=False)
    orders = [Order(entrant, 0, "rows", 100, 10, None, device) for device in ("cpu", "cuda")]
    assert Shelf(tmp_path).place(orders[0]) == Shelf(tmp_path).place(Order(entrant, 0, "rows", 100, 10, None))
    assert Shelf(tmp_path).place(orders[0]) != Shelf(tmp_path).place(orders[1])
    with pytest.raises(SettingError, match="cuda:77"):
        run(tmp_path, device="cuda:77")


def test_few_rows_held_out_are_enough():
    found = module.lineup(
        lambda seed: Sample(*torch.randn(70, 8).split([40, 30])),
        names=("top_k",),
        quiet=True,
        **(SIZE | {"seeds": (0,)}),
    )
    assert [one.name for one in found.standings] == ["top_k"]


def test_an_interrupted_lineup_goes_on_where_it_stopped_and_ends_the_same(tmp_path, trained):
    trained.stop_at = 4
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "kept")
    trained.stop_at = None
    resumed = run(tmp_path / "kept")
    assert trained[:3] == [(name, 0) for name in NAMES], "seed by seed"
    assert trained[4:] == [(name, 1) for name in NAMES], (
        "the one that was interrupted is done again, the others are not"
    )
    assert numbers(resumed) == numbers(run(tmp_path / "fresh"))


def test_the_same_lineup_again_trains_nothing_and_knows_what_it_cost(tmp_path, trained):
    first = run(tmp_path)
    del trained[:]
    again = run(tmp_path)
    assert trained == [] and again == first


def test_another_lineup_shares_what_is_the_same_and_nothing_else(tmp_path, trained):
    run(tmp_path, ("top_k",))
    del trained[:]
    run(tmp_path, ("pca", "top_k"))
    assert trained == [("pca", 0), ("pca", 1)]
    for change in ({"n_tokens": 1300}, {"lr": 1e-3}, {"ks": (3,)}, {"n_latents": 17}, {"batch_rows": 99}):
        del trained[:]
        run(tmp_path, ("top_k",), **change)
        assert len(trained) == 2, change
    del trained[:]
    run(tmp_path, ("top_k",), of=lambda seed: Sample(sample(seed).train, sample(seed).held_out * 1.01))
    assert len(trained) == 2, "other rows"


def test_what_is_damaged_is_trained_again(tmp_path, trained):
    first = run(tmp_path, ("top_k",))
    for weights in tmp_path.rglob("weights.safetensors"):
        weights.write_bytes(weights.read_bytes()[:-4])
    del trained[:]
    assert numbers(run(tmp_path, ("top_k",))) == numbers(first) and len(trained) == 2


def test_without_a_folder_nothing_is_kept(tmp_path, monkeypatch, trained):
    monkeypatch.chdir(tmp_path)
    run(None, ("pca",))
    assert list(tmp_path.rglob("*")) == []


def test_it_says_beforehand_what_it_will_cost_and_then_who_is_trained(tmp_path, capsys, trained):
    module.lineup(sample, names=NAMES, keep=tmp_path, quiet=False, **SIZE)
    said = capsys.readouterr().err
    assert "6 trainings to do: about" in said and "comparing top_k k=2, seed 0: 1/6" in said
    module.lineup(sample, names=NAMES, keep=tmp_path, quiet=False, **SIZE)
    assert "6 of 6 trainings are kept already" in capsys.readouterr().err


def test_expected_costs_count_updates_and_rounds(monkeypatch):
    """Under a clock that ticks at each look, an update or a fit is one tick, and so is measuring a 32nd of 100 rows."""
    ticks = itertools.count()
    monkeypatch.setattr(costs, "clock_of", lambda device: lambda: float(next(ticks)))
    rows = sample(0)

    def expected(name, n_tokens, rounds=50):
        (entrant,), _ = entrants((name,), 16, 2, width=8, rounds=rounds)
        return costs.expected_seconds(Order(entrant, 0, "", n_tokens, 50, None), rows)

    measuring = 100 / 3
    assert expected("top_k", 1000) == pytest.approx(20 + measuring)
    assert expected("top_k", 5000) == pytest.approx(100 + measuring)
    assert expected("k_means", 1000) == pytest.approx(300 / 32 + measuring)
    assert expected("nmf", 1000) == pytest.approx(1 + measuring), "rounds that take no time"


def test_a_kept_training_comes_back_as_it_was(tmp_path):
    rows, shelf = sample(0), Shelf(tmp_path)
    (entrant,), _ = entrants(("top_k",), 16, 2, width=8)
    order = Order(entrant, 0, fingerprint(rows), 600, 100, None)
    made = module.trial("top_k", entrant.preset, rows, 0, n_tokens=600, batch_rows=100)
    assert not shelf.has(order)
    shelf.put(order, made)
    back = shelf.get(order)
    assert shelf.has(order) and back.measures == made.measures and back.seconds == made.seconds
    assert torch.equal(back.dictionary.atoms(), made.dictionary.atoms())
