"""Files that are written in blocks are those that safetensors writes, and are read in parts."""

import pytest
import torch
from safetensors.torch import load_file, save_file

from overtone.core import tensor_files
from overtone.core.tensor_files import NAMES, Blocks, StoredTensors, in_blocks, in_file_order, write_tensors


@pytest.fixture
def tensors(generator):
    """Every type, and awkward shapes and names."""
    found = {str(dtype): torch.randint(0, 2, (3, 5), generator=generator).to(dtype) for dtype in NAMES}
    found |= {"none": torch.zeros(0, 4), "number": torch.tensor(2.5), '\u00e9 "x\\': torch.ones(1, dtype=torch.bool)}
    return found | {"long": torch.randn(1000, 3, generator=generator), "turned": torch.randn(4, 6).T}


@pytest.mark.parametrize("block", [1, 100, 2**22])
def test_the_bytes_are_those_of_safetensors(tensors, block, tmp_path, monkeypatch):
    monkeypatch.setattr(tensor_files, "BLOCK", block)
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, tmp_path / "theirs")
    write_tensors(tmp_path / "ours", {name: Blocks.of(tensor) for name, tensor in tensors.items()})
    assert (tmp_path / "ours").read_bytes() == (tmp_path / "theirs").read_bytes()


def test_blocks_are_taken_one_at_a_time_in_the_order_that_is_announced(tensors, tmp_path):
    taken = []

    def told(name):
        for block in in_blocks(tensors[name]):
            taken.append(name)
            yield block

    blocks = {name: Blocks(t.dtype, tuple(t.shape), told(name)) for name, t in tensors.items()}
    write_tensors(tmp_path / "file", blocks)
    assert taken == [name for name in in_file_order(blocks) if name != "none"]


def test_blocks_that_are_not_what_was_announced_are_found(tmp_path):
    with pytest.raises(AssertionError, match="do not make the shapes"):
        write_tensors(tmp_path / "file", {"x": Blocks(torch.float32, (3, 2), [torch.zeros(2, 2)])})


def test_parts_are_read_as_of_a_tensor(tensors, tmp_path):
    write_tensors(tmp_path / "file", {name: Blocks.of(tensor) for name, tensor in tensors.items()})
    stored = StoredTensors(tmp_path / "file")
    assert stored.keys() == tensors.keys() == load_file(tmp_path / "file").keys()
    for name, tensor in tensors.items():
        assert torch.equal(stored[name][...], tensor)
    assert torch.equal(stored["long"][7:900], tensors["long"][7:900])
    with pytest.raises(KeyError, match="nothing"):
        stored["nothing"]


@pytest.mark.parametrize("block", [1, 100, 2**22])
def test_tensors_are_told_about_and_copied_block_by_block(tensors, block, tmp_path, monkeypatch):
    write_tensors(tmp_path / "file", {name: Blocks.of(tensor) for name, tensor in tensors.items()})
    stored, read, largest = StoredTensors(tmp_path / "file"), tensor_files._Stored.__getitem__, []

    def watched(self, index):
        largest.append(read(self, index).nbytes)
        return read(self, index)

    monkeypatch.setattr(tensor_files, "BLOCK", block)
    monkeypatch.setattr(tensor_files._Stored, "__getitem__", watched)
    for name, tensor in tensors.items():
        assert (stored.dtype(name), stored.shape(name)) == (tensor.dtype, tuple(tensor.shape))
        copy = torch.empty_like(tensor)
        stored.copy_to(copy, name)
        assert torch.equal(copy, tensor)
    row = max(tensor[0].nbytes for tensor in tensors.values() if tensor.ndim and len(tensor))
    assert max(largest) <= max(block, row)
