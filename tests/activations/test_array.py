"""Arrays as sources: from memory or file, every row once, the same contract as a stream."""

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from overtone.activations.array import ArraySource
from overtone.activations.source import ActivationSource
from overtone.core.batch import Where
from overtone.core.errors import DataError, SettingError, ShapeError
from overtone.core.sites import Site


@pytest.fixture
def rows(generator):
    return torch.randn(50, 6, generator=generator)


def test_an_array_is_a_source(rows):
    source = ArraySource(rows, site="mlp_out.2")
    assert isinstance(source, ActivationSource)
    assert (source.sites, source.widths, source.n_rows) == ((Site("mlp_out", 2),), {Site("mlp_out", 2): 6}, 50)


def test_epochs_are_permutations_that_the_seed_decides_and_origins_travel_with_their_rows(rows):
    source = ArraySource(rows)
    one, two = (list(source.batches(25, seed=7, epochs=2)) for _ in range(2))
    for a, b in zip(one, two, strict=True):
        assert torch.equal(a.x[source.site], b.x[source.site])
        assert torch.equal(a.x[source.site], rows[a.where.document])
    seen = torch.cat([b.where.document for b in one])
    assert sorted(seen[:50].tolist()) == sorted(seen[50:].tolist()) == list(range(50))
    assert not torch.equal(seen[:50], seen[50:])
    assert not torch.equal(seen[:25], next(source.batches(25, seed=8)).where.document)


def test_without_a_seed_rows_come_in_order_and_all_is_a_copy(rows):
    source = ArraySource(rows)
    assert torch.equal(torch.cat([b.at(source.site) for b in source.batches(8)]), rows)
    everything = source.all()
    everything.x[source.site].zero_()
    assert not bool((rows == 0).all())


def test_given_origins_are_kept(rows):
    where = Where(torch.arange(50) // 10, torch.arange(50) % 10, torch.arange(50))
    batch = next(ArraySource(rows, where=where).batches(50, seed=1))
    assert torch.equal(batch.where.document * 10 + batch.where.token, batch.where.step)
    assert torch.equal(batch.at(Site("residual", 0)), rows[batch.where.step])


@pytest.mark.parametrize("name", ["rows.npy", "rows.safetensors"])
def test_files_give_the_rows_that_were_saved(tmp_path, rows, name):
    path = tmp_path / name
    if path.suffix == ".npy":
        np.save(path, rows.half().numpy())
    else:
        save_file({"h": rows.half()}, path)
    batch = ArraySource.open(path).all()
    assert torch.equal(batch.at(Site("residual", 0)), rows.half().float())


def test_one_of_several_tensors_is_named(tmp_path, rows):
    save_file({"a": rows, "b": 2 * rows}, tmp_path / "x.safetensors")
    assert torch.equal(ArraySource.open(tmp_path / "x.safetensors", name="b").array, 2 * rows)
    with pytest.raises(DataError, match="holds a, b"):
        ArraySource.open(tmp_path / "x.safetensors")


def test_what_is_no_matrix_of_numbers_is_refused(tmp_path, rows):
    for bad in (rows[0], rows.long(), rows[:0]):
        with pytest.raises(ShapeError, match="floating matrix"):
            ArraySource(bad)
    with pytest.raises(ShapeError, match="origin of 50 rows, got 2"):
        ArraySource(rows, where=Where(*(torch.zeros(2, dtype=torch.int64) for _ in range(3))))
    (tmp_path / "bad.npy").write_bytes(b"nonsense")
    (tmp_path / "bad.safetensors").write_bytes(b"nonsense")
    (tmp_path / "bad.txt").write_text("1")
    for name, message in (("bad.npy", "not an array"), ("bad.safetensors", "no safetensors"), ("bad.txt", "Convert")):
        with pytest.raises(DataError, match=message):
            ArraySource.open(tmp_path / name)
    with pytest.raises(DataError, match="does not exist"):
        ArraySource.open(tmp_path / "missing.npy")
    with pytest.raises(SettingError, match="without a name"):
        np.save(tmp_path / "x.npy", rows.numpy())
        ArraySource.open(tmp_path / "x.npy", name="h")


def test_the_fingerprint_follows_the_numbers_and_the_shape(rows):
    changed = rows.clone()
    changed[7, 2] += 1e-3
    arrays = (rows, changed, rows[:25], rows.half())
    assert len({ArraySource(a).fingerprint for a in arrays}) == 4
    assert ArraySource(rows.clone()).fingerprint == ArraySource(rows).fingerprint


def test_not_finite_rows_are_refused_when_they_are_read(rows):
    rows[3, 2] = torch.nan
    with pytest.raises(DataError, match="residual.0: 1 of 50 rows"):
        list(ArraySource(rows).batches(10))
