"""Control vectors, checked with llama.cpp's own Python package: each side reads what the other writes.

    PYTHONPATH=src PYTHON tools/check_gguf.py [--golden tests/formats/golden]

PYTHON is the interpreter of an environment with gguf, torch, safetensors and jaxtyping. Exits 1 if a number differs.
With --golden a file that gguf wrote is kept, for tests/formats/test_control_vector.py.
"""

import argparse
import importlib.metadata
import sys
import tempfile
from pathlib import Path

import gguf
import numpy
import torch

from overtone.core.sites import Site
from overtone.directions.direction import unit_direction
from overtone.formats.control_vector import export_control_vector, import_control_vector

WIDTH = 8


def written_by_gguf(path: Path) -> dict[int, numpy.ndarray]:
    """Three layers of numbers, written as llama.cpp's generators do; returns them."""
    numbers = {layer: numpy.linspace(layer, layer + 1, WIDTH, dtype=numpy.float32) for layer in (1, 2, 5)}
    writer = gguf.GGUFWriter(path, "controlvector")
    writer.add_string("controlvector.model_hint", "llama")
    writer.add_uint32("controlvector.layer_count", len(numbers))
    for layer, vector in numbers.items():
        writer.add_tensor(f"direction.{layer}", vector)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return numbers


def main() -> int:
    """Both ways; 0 if all numbers agree."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--golden", type=Path, help="folder that keeps what gguf wrote")
    golden = parser.parse_args().golden
    with tempfile.TemporaryDirectory() as place:
        theirs = Path(place) / "theirs.gguf"
        numbers = written_by_gguf(theirs)
        read = {d.site.layer: d.vector * d.raw_norm for d in import_control_vector(theirs)}
        apart = max(float((read[layer] - torch.from_numpy(numbers[layer])).abs().max()) for layer in numbers)
        ok = read.keys() == numbers.keys() and apart < 1e-5
        print(f"gguf {importlib.metadata.version('gguf')}: read {sorted(read)}, largest difference {apart:.1e}")
        directions = [unit_direction(torch.arange(1.0, WIDTH + 1) * layer, Site("residual", layer)) for layer in (3, 4)]
        ours = export_control_vector(directions, Path(place) / "ours.gguf", strength=2.5, model_hint="llama")
        reader = gguf.GGUFReader(ours)
        told = {key: field.contents() for key, field in reader.fields.items() if not key.startswith("GGUF.")}
        found = {tensor.name: torch.from_numpy(tensor.data.copy()) for tensor in reader.tensors}
        wanted = {f"direction.{d.site.layer}": d.vector * 2.5 for d in directions}
        ok &= found.keys() == wanted.keys() and all(torch.equal(found[name], wanted[name]) for name in wanted)
        ok &= told["general.architecture"] == "controlvector" and told["controlvector.layer_count"] == 4
        print(f"written {sorted(found)}, {told}: {'equal' if ok else 'DIFFERENT'}")
        if golden is not None:
            folder = golden / f"gguf-{importlib.metadata.version('gguf')}"
            folder.mkdir(parents=True, exist_ok=True)
            (folder / "control_vector.gguf").write_bytes(theirs.read_bytes())
    return 0 if ok else 1


if __name__ == "__main__":
    sys.exit(main())
