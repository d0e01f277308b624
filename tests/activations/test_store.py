"""The store: the stream's rows in the stream's order, resumable after a kill, refused when damaged or foreign."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from overtone.activations import store as store_module
from overtone.activations.positions import AllTokens, StepAnchor
from overtone.activations.source import ActivationSource
from overtone.activations.store import ActivationStore, collect, store_name
from overtone.activations.stream import ActivationStream
from overtone.core.artifacts import read_manifest
from overtone.core.errors import DataError, SettingError, StoreError
from overtone.core.sites import Site

SITES = [Site("residual", 1), Site("mlp_out", 0)]
STEPS = frozenset([4])
SHARD_BYTES = 4096  # 32 rows of two sites of width 16: a dozen shards


def stream(model, traces, positions=None, **options):
    return ActivationStream(model, traces, SITES, positions or AllTokens(), quiet=True, **options)


def files(folder):
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in Path(folder).rglob("*") if p.is_file()}


@pytest.fixture(scope="module")
def stored(model, traces, tmp_path_factory):
    """A stream with a small buffer, and its store of a dozen shards."""
    source = stream(model, traces, buffer_rows=64)
    return source, collect(tmp_path_factory.mktemp("stores"), source, shard_bytes=SHARD_BYTES, quiet=True)


@pytest.fixture
def copy(stored, tmp_path):
    """A copy of the store's folder, to be damaged."""
    return Path(shutil.copytree(stored[1].folder, tmp_path / "copy"))


# -------------------------------------------------------------------------------------------------------------- laws
@pytest.mark.parametrize("seed", [None, 0, 1])
@pytest.mark.parametrize("rows", [5, 64])
def test_stream_and_store_give_equal_rows_in_equal_order(stored, seed, rows):
    source, store = stored
    pairs = list(zip(*(s.batches(rows, seed=seed, epochs=2) for s in (source, store)), strict=True))
    assert len(pairs) == -(-2 * source.n_rows // rows)
    for live, kept in pairs:
        for name in ("document", "token", "step"):
            assert torch.equal(getattr(live.where, name), getattr(kept.where, name))
        for site in SITES:
            torch.testing.assert_close(live.at(site), kept.at(site), rtol=1e-5, atol=1e-5)


def test_a_store_of_steps_follows_the_stream_too(model, traces, tmp_path):
    source = stream(model, traces, StepAnchor("first_k", STEPS), buffer_rows=16)
    store = collect(tmp_path, source, shard_bytes=1000, quiet=True)
    for live, kept in zip(source.batches(9, seed=4), store.batches(9, seed=4), strict=True):
        assert torch.equal(live.where.step, kept.where.step)
        torch.testing.assert_close(live.at(SITES[0]), kept.at(SITES[0]), rtol=1e-5, atol=1e-5)


def test_a_store_is_a_source_with_the_streams_sites_rows_and_statistics(stored):
    source, store = stored
    assert isinstance(store, ActivationSource)
    assert (store.sites, store.widths, store.n_rows) == (source.sites, source.widths, source.n_rows)
    assert len(store.shards) > 8
    rows = store.all().at(SITES[0])
    known = store.statistics(SITES[0])
    torch.testing.assert_close(known.mean.float(), rows.mean(0))
    torch.testing.assert_close(known.second_moment.float(), rows.square().mean(0))
    assert known.mean_norm == pytest.approx(float(rows.norm(dim=1).mean()), rel=1e-5)
    with pytest.raises(DataError, match="residual.0 was not collected"):
        store.statistics(Site("residual", 0))


def test_documents_can_be_read_in_any_order(stored):
    source, store = stored
    for documents in ([24, 3, 4, 5, 0], [7], list(range(25))):
        x, y = (torch.cat([b.at(SITES[1]) for b in s.read(documents)]) for s in (source, store))
        torch.testing.assert_close(x, y, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(("dtype", "tolerance"), [("bfloat16", 1e-2), ("float16", 2e-3)])
def test_a_smaller_dtype_halves_the_shards_and_comes_back_as_float32(model, traces, tmp_path, dtype, tolerance):
    source = stream(model, traces)
    small, full = (collect(tmp_path, source, dtype=name, quiet=True) for name in (dtype, "float32"))
    kept, exact = small.all().at(SITES[0]), full.all().at(SITES[0])
    assert kept.dtype == torch.float32
    torch.testing.assert_close(kept, exact, rtol=tolerance, atol=tolerance)
    sizes = [sum(p.stat().st_size for p in (s.folder / "shards").iterdir()) for s in (small, full)]
    assert sizes[0] < 0.55 * sizes[1]


def test_states_beyond_a_dtypes_range_are_refused(helpers, traces, tmp_path):
    model = helpers["tiny_model"](seed=1)
    with torch.no_grad():
        model.model.transformer.h[0].mlp.c_proj.bias[3] = 1e6
    with pytest.raises(DataError, match="residual.1: the states do not fit into float16"):
        collect(tmp_path, stream(model, traces), dtype="float16", quiet=True)


# ------------------------------------------------------------------------------------------------- identity, resuming
def test_the_name_is_decided_by_model_traces_sites_positions_and_dtype(helpers, model, traces):
    base = store_name(stream(model, traces))
    others = [
        store_name(stream(helpers["tiny_model"](seed=1), traces)),
        store_name(stream(model, traces[:-1])),
        store_name(stream(model, traces, StepAnchor("next", STEPS))),
        store_name(ActivationStream(model, traces, SITES[:1], AllTokens())),
        store_name(stream(model, traces), dtype="bfloat16"),
    ]
    assert len({base, *others}) == 6
    assert store_name(stream(model, traces, tokens_per_pass=17, buffer_rows=9)) == base


def test_a_finished_store_is_opened_instead_of_computed_again(model, traces, tmp_path, monkeypatch):
    first = collect(tmp_path, stream(model, traces), quiet=True)
    monkeypatch.setattr(ActivationStream, "read", None)
    again = collect(tmp_path, stream(model, traces), quiet=True)
    assert again.folder == first.folder and again.manifest == first.manifest


def test_collecting_twice_gives_equal_bytes(stored, model, traces, tmp_path):
    again = collect(tmp_path, stream(model, traces), shard_bytes=SHARD_BYTES, quiet=True)
    assert files(again.folder) == files(stored[1].folder)


KILLED = """
import os, signal, sys
sys.path.insert(0, {tests!r})
from conftest import some_traces, tiny_model
from overtone.activations import store as store_module
from overtone.activations.positions import AllTokens
from overtone.activations.store import collect
from overtone.activations.stream import ActivationStream

class Dying(ActivationStream):
    def read(self, documents):
        for piece in super().read(documents):
            yield piece
            if documents.start > 8:
                os.kill(os.getpid(), signal.SIGKILL)

from overtone.core.sites import Site
sites = [Site("residual", 1), Site("mlp_out", 0)]
collect({folder!r}, Dying(tiny_model(), some_traces(), sites, AllTokens(), quiet=True), shard_bytes={shard}, quiet=True)
"""


def test_a_killed_collection_resumes_to_the_same_bytes(stored, model, traces, tmp_path):
    script = KILLED.format(tests=str(Path(__file__).parent), folder=str(tmp_path), shard=SHARD_BYTES)
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=120)
    assert done.returncode == -9, done.stderr
    (working,) = tmp_path.iterdir()
    written = sorted(p.name for p in (working / "store" / "shards").iterdir())
    assert 2 < len(written) < len(stored[1].shards)
    with pytest.raises(StoreError, match="unfinished"):
        ActivationStore.open(working / "store")

    reads = []
    resumed = stream(model, traces)
    read = resumed.read
    resumed.read = lambda documents: (reads.append(documents), read(documents))[1]
    store = collect(tmp_path, resumed, shard_bytes=SHARD_BYTES, quiet=True)
    assert len(reads) == len(store.shards) - len(written)
    assert files(store.folder) == files(stored[1].folder)
    assert [p.name for p in tmp_path.iterdir()] == [store.folder.name]


SHARING = """
import os, signal, sys, time
from pathlib import Path
sys.path.insert(0, {tests!r})
from conftest import some_traces, tiny_model
from overtone.activations.positions import AllTokens
from overtone.activations.store import collect
from overtone.activations.stream import ActivationStream
from overtone.core.sites import Site

done = []
class Slow(ActivationStream):
    def read(self, documents):
        done.append(documents.start)
        Path({folder!r}, "met-" + sys.argv[1]).touch()
        while len(list(Path({folder!r}).glob("met-*"))) < 3:  # all have begun: each has a shard of its own
            time.sleep(0.01)
        if sys.argv[1] == "2":
            os.kill(os.getpid(), signal.SIGKILL)
        return super().read(documents)

sites = [Site("residual", 1), Site("mlp_out", 0)]
stream = Slow(tiny_model(), some_traces(), sites, AllTokens(), quiet=True)
store = collect(Path({folder!r}) / "stores", stream, shard_bytes={shard}, quiet=True)
print(len(done), store.n_rows)
"""


@pytest.mark.timeout(600)  # three starts of Python with torch
def test_several_processes_fill_one_store_although_one_is_killed(stored, tmp_path):
    """Three begin together, one dies in its shard; the bytes are those of one, and no shard was computed twice."""
    script = SHARING.format(tests=str(Path(__file__).parent), folder=str(tmp_path), shard=SHARD_BYTES)
    processes = [
        subprocess.Popen([sys.executable, "-c", script, str(i)], text=True, stdout=-1, stderr=-1) for i in range(3)
    ]
    said = [process.communicate(timeout=500) for process in processes]
    assert [process.returncode for process in processes] == [0, 0, -9], said
    shares = [int(out.split()[0]) for out, _ in said[:2]]
    assert min(shares) >= 1 and sum(shares) == len(stored[1].shards)
    (folder,) = (tmp_path / "stores").iterdir()
    assert files(folder) == files(stored[1].folder)


def test_a_shard_damaged_before_resuming_is_written_again_and_strays_are_swept_away(stored, model, traces, tmp_path):
    class Interrupted(ActivationStream):
        def read(self, documents):
            if documents.start > 8:
                raise KeyboardInterrupt
            return super().read(documents)

    with pytest.raises(KeyboardInterrupt):
        broken = Interrupted(model, traces, SITES, AllTokens(), quiet=True)
        collect(tmp_path, broken, shard_bytes=SHARD_BYTES, quiet=True)
    (working,) = tmp_path.iterdir()
    first = working / "store" / "shards" / "00000.safetensors"
    first.write_bytes(first.read_bytes()[:-8])
    (first.parent / ".00007.safetensors.1.part").write_bytes(b"half")
    store = collect(tmp_path, stream(model, traces), shard_bytes=SHARD_BYTES, quiet=True)
    assert files(store.folder) == files(stored[1].folder)


# ------------------------------------------------------------------------------------------------------------ refusals
def test_a_store_of_another_model_is_refused_naming_both(stored, helpers, model):
    other = helpers["tiny_model"](seed=1)
    with pytest.raises(StoreError, match=rf"tiny-0 .{model.fingerprint}.*tiny-1 .{other.fingerprint}"):
        ActivationStore.open(stored[1].folder, model=other)
    assert ActivationStore.open(stored[1].folder, model=model).n_rows == stored[1].n_rows


@pytest.mark.parametrize("verify", [True, False])
def test_a_truncated_shard_is_refused(copy, verify):
    shard = copy / "shards" / "00002.safetensors"
    shard.write_bytes(shard.read_bytes()[:-100])
    with pytest.raises(StoreError, match=r"00002.safetensors is (missing or damaged|truncated)"):
        ActivationStore.open(copy, verify=verify)


@pytest.mark.parametrize("verify", [True, False])
def test_a_missing_shard_is_refused(copy, verify):
    (copy / "shards" / "00003.safetensors").unlink()
    with pytest.raises(StoreError, match="00003.safetensors is missing"):
        ActivationStore.open(copy, verify=verify)


def test_a_flipped_bit_is_refused(copy):
    shard = copy / "shards" / "00001.safetensors"
    data = bytearray(shard.read_bytes())
    data[-5] ^= 1
    shard.write_bytes(data)
    with pytest.raises(StoreError, match="00001.safetensors is missing or damaged"):
        ActivationStore.open(copy)


def test_a_shard_that_holds_something_else_is_refused_even_unverified(copy):
    from safetensors.torch import save_file

    save_file({"residual.1": torch.zeros(3, 16)}, copy / "shards" / "00004.safetensors")
    with pytest.raises(StoreError, match=r"expected \[\d+, 16\] float32 at residual.1, found \[3, 16\] F32"):
        ActivationStore.open(copy, verify=False)


def test_a_row_table_that_does_not_fit_is_refused(copy):
    import pyarrow.parquet as pq

    pq.write_table(pq.read_table(copy / "rows.parquet").slice(0, 10), copy / "rows.parquet")
    with pytest.raises(StoreError, match=r"lists 10 rows, the shards hold"):
        ActivationStore.open(copy, verify=False)
    (copy / "rows.parquet").write_bytes(b"nonsense")
    with pytest.raises(StoreError, match="rows.parquet cannot be read"):
        ActivationStore.open(copy, verify=False)


def test_a_folder_that_is_no_store_is_refused(tmp_path, copy):
    with pytest.raises(StoreError, match="does not exist"):
        ActivationStore.open(tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    with pytest.raises(StoreError, match="no manifest.json"):
        ActivationStore.open(tmp_path / "empty")
    manifest = json.loads((copy / "manifest.json").read_text())
    (copy / "manifest.json").write_text(json.dumps({**manifest, "kind": "dictionary"}))
    with pytest.raises(StoreError, match="holds a dictionary, not a store"):
        ActivationStore.open(copy)


def test_a_folder_of_stores_opens_if_it_holds_one_and_names_them_if_it_holds_more(model, traces, tmp_path):
    first = collect(tmp_path, stream(model, traces), quiet=True)
    assert ActivationStore.open(tmp_path).folder == first.folder
    second = collect(tmp_path, stream(model, traces[:3]), quiet=True)
    with pytest.raises(StoreError, match=f"holds 2 stores: .*{second.folder.name}"):
        ActivationStore.open(tmp_path)


def test_fingerprints_tell_contents_apart(stored, helpers, model, traces):
    source, store = stored
    others = [stream(model, traces[:5]), stream(helpers["tiny_model"](seed=1), traces)]
    assert len({source.fingerprint, *(o.fingerprint for o in others)}) == 3
    assert store.fingerprint == ActivationStore.open(store.folder).fingerprint


def test_a_name_taken_by_something_else_is_left_alone(model, traces, tmp_path):
    source = stream(model, traces)
    mine = tmp_path / store_name(source) / "notes.txt"
    mine.parent.mkdir()
    mine.write_text("keep me")
    with pytest.raises(StoreError, match="left alone"):
        collect(tmp_path, source, quiet=True)
    assert mine.read_text() == "keep me"


def test_an_unknown_dtype_is_refused_with_the_nearest(model, traces, tmp_path):
    with pytest.raises(SettingError, match="Did you mean 'float16'"):
        collect(tmp_path, stream(model, traces), dtype="float61", quiet=True)
    assert list(tmp_path.iterdir()) == []


def test_the_manifest_says_what_the_store_was_made_from(stored, model):
    manifest = read_manifest(stored[1].folder, "store")
    assert manifest.sources["model"] == model.fingerprint
    assert manifest.facts["model_name"] == "tiny-0"
    assert manifest.facts["sites"] == ["residual.1", "mlp_out.0"]


# ---------------------------------------------------------------------------------------------------------- gradients
@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_a_store_keeps_gradients_exactly_and_in_the_streams_order(model, traces, tmp_path, dtype):
    source = stream(model, traces, gradient="mean", buffer_rows=16)
    store = collect(tmp_path, source, shard_bytes=2000, dtype=dtype, quiet=True)
    assert store.gradient == "mean" and len(store.shards) > 3
    for live, kept in zip(source.batches(9, seed=4), store.batches(9, seed=4), strict=True):
        assert torch.equal(live.where.token, kept.where.token)
        torch.testing.assert_close(live.g[SITES[0]], kept.g[SITES[0]], rtol=1e-4, atol=1e-7)
    everything = store.all()
    torch.testing.assert_close(everything.g[SITES[1]], source.all().g[SITES[1]], rtol=1e-4, atol=1e-7)


def test_a_collection_with_gradients_goes_on_where_it_was_killed(model, traces, tmp_path, monkeypatch):
    source, written = stream(model, traces, gradient="sum"), []
    real = store_module._write

    def write(working, number, *rest):
        if number == 2:
            raise KeyboardInterrupt
        written.append(number)
        real(working, number, *rest)

    whole = collect(tmp_path / "whole", source, shard_bytes=2000, quiet=True)
    monkeypatch.setattr(store_module, "_write", write)
    with pytest.raises(KeyboardInterrupt):
        collect(tmp_path / "cut", source, shard_bytes=2000, quiet=True)
    monkeypatch.setattr(store_module, "_write", real)
    resumed = collect(tmp_path / "cut", source, shard_bytes=2000, quiet=True)
    assert written == [0, 1] and resumed.fingerprint == whole.fingerprint


def test_a_store_without_gradients_says_so(stored):
    _, store = stored
    assert store.gradient is None and next(store.batches(5)).g is None
