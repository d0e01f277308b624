"""Compatibility with the other libraries, checked with the libraries themselves.

    python tools/check_formats.py --saelens PYTHON --sparsify PYTHON --dictionary-learning PYTHON
        --circuit-tracer PYTHON --openai PYTHON [--golden tests/formats/golden] [--json]

PYTHON is the interpreter of an environment that holds that library (`python -m venv e && e/bin/pip install sae-lens`,
and likewise eai-sparsify, dictionary-learning, circuit-tracer; for openai a checkout of its sparse_autoencoder on
PYTHONPATH). Peers that are not named are left out. In both directions codes and reconstructions of the same rows are
compared: what the peer writes is read with overtone, and what overtone writes (every preset that the format can hold,
trained for a moment) is read with the peer. Prints the largest difference over the largest number; exits 1 above 1e-5.
With --golden, what the peers wrote is kept there, a folder per peer and version, for tests/formats/test_golden.py.
"""

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from overtone.core.batch import ActivationBatch, Where
from overtone.core.catalogue import entries, lookup
from overtone.core.errors import CapabilityError
from overtone.core.sites import Site
from overtone.dictionaries.dictionary import Dictionary
from overtone.formats.exchange import export_dictionary, import_dictionary
from overtone.training.fit import fit

PEERS = {"saelens": "sae-lens", "sparsify": "eai-sparsify", "dictionary_learning": "dictionary-learning",
         "circuit_tracer": "circuit-tracer", "openai": "openai/sparse_autoencoder"}  # fmt: skip
READERS = {"gemma_scope": "circuit_tracer"}  # a format without a package of its own: who reads it
FACTS = {"site": "mlp_in.0", "target": "mlp_out.0", "model": "gpt2"}
TOLERANCE = 1e-5
SIDE = Path(__file__).with_name("format_peers.py")


class PeerFailed(Exception):
    """A peer could not even write or read; the others are checked all the same."""


def run_peer(python: str, peer: str, what: str, folder: Path) -> dict[str, str]:
    """Let the peer write or read; returns its package and version. Raises PeerFailed with what it said if it fails."""
    done = subprocess.run([python, str(SIDE), peer, what, str(folder)], capture_output=True, text=True)
    if done.returncode:
        raise PeerFailed(f"{peer} ({python}) failed to {what}:\n{done.stderr[-1500:]}")
    return json.loads((folder / "peer.json").read_text())


def apart(mine: Tensor, theirs: Tensor) -> float:
    """The largest difference in units of the largest number."""
    return float((mine - theirs).abs().max() / theirs.abs().max().clamp(min=1e-30))


def theirs_read_by_us(peer: str, python: str, folder: Path, golden: Path | None) -> list[dict]:
    """One line per dictionary that the peer wrote."""
    told = run_peer(python, peer, "write", folder)
    lines = []
    for place in sorted(p for p in folder.iterdir() if p.is_dir()):
        kept = load_file(place / "expected.safetensors")
        line: dict[str, Any] = {"peer": peer, **told, "way": "read", "case": place.name}
        try:
            read = import_dictionary(place).dictionary
        except CapabilityError as error:
            lines.append({**line, "refused": str(error)})
            continue
        codes = read.encode(kept["x"])
        outward = getattr(read, "outward", None)  # codes are in the states' units here, in the row's there
        sizes = outward.units(kept["x"]) if outward is not None and outward.rowwise else 1.0
        line["codes"] = apart(codes.dense() * sizes, kept["codes"])
        lines.append({**line, "reconstruction": apart(read.decode(codes, kept["x"]), kept["reconstruction"])})
    if golden is not None:
        target = golden / f"{peer}-{told['version']}"
        shutil.rmtree(target, ignore_errors=True)
        shutil.copytree(folder, target)
    return lines


HERE, THERE = Site("mlp_in", 0), Site("mlp_out", 0)


def states(rows: int = 400, width: int = 8) -> Tensor:
    """Correlated states with a mean."""
    generator = torch.Generator().manual_seed(0)
    return torch.randn(rows, width, generator=generator) @ torch.randn(width, width, generator=generator) + 1


def trained(name: str) -> Dictionary:
    """A preset after a short training, on states and whatever else it asks for."""
    x, preset = states(), lookup("dictionaries", name).thing.example(n_latents=8, k=3)
    where = Where(*(torch.zeros(len(x), dtype=torch.int64) for _ in range(3)))
    batch = ActivationBatch({HERE: x, THERE: x.roll(1, 1).abs() - 0.5 * x}, where, g={HERE: x.sin()})
    target = THERE if "y" in preset.needs else None
    return fit(preset, batch, site=HERE, target=target, n_tokens=2000, batch_rows=50, quiet=True).dictionary


def written_by_us(format: str, folder: Path) -> dict[str, list[Tensor]]:
    """Every preset that the format holds, with one-sided latents where that is needed: case -> [codes,
    reconstruction]."""
    x, made = states(), {}
    save_file({"x": x[:50]}, folder / "x.safetensors")
    for name in entries("dictionaries"):
        dictionary = trained(name)
        signed = dictionary.capabilities.signed_codes
        for split in (False, True) if signed else (False,):
            case = f"{name}{'-split' * split}"
            try:
                export_dictionary(dictionary, folder / case, format, facts=FACTS, split_signs=split)
            except CapabilityError:
                continue
            codes = dictionary.encode(x[:50])
            dense = torch.cat([codes.dense().relu(), (-codes.dense()).relu()], 1) if split else codes.dense()
            made[case] = [dense, dictionary.decode(codes, x[:50])]
    return made


def ours_read_by_them(format: str, peer: str, python: str, folder: Path) -> list[dict]:
    """One line per preset that the format holds."""
    folder.mkdir()
    made = written_by_us(format, folder)
    told = run_peer(python, peer, "read", folder)
    lines = []
    for case, (codes, reconstruction) in made.items():
        result = load_file(folder / case / f"{peer}.result")
        difference = {
            "codes": apart(codes, result["codes"]),
            "reconstruction": apart(reconstruction, result["reconstruction"]),
        }
        lines.append({"peer": peer, **told, "way": "written", "case": f"{format}: {case}", **difference})
    return lines


def both_ways(peer: str, python: str, golden: Path | None) -> list[dict]:
    """All lines of one peer."""
    with tempfile.TemporaryDirectory() as place:
        lines = theirs_read_by_us(peer, python, Path(place) / "theirs", golden)
        for format in entries("formats"):
            if READERS.get(format, format) == peer and lookup("formats", format).thing.writes:
                lines += ours_read_by_them(format, peer, python, Path(place) / f"ours-{format}")
    return lines


def main() -> int:
    """Check the peers that are named; 0 if all agree."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for peer, package in PEERS.items():
        parser.add_argument(f"--{peer.replace('_', '-')}", metavar="PYTHON", help=f"interpreter that has {package}")
    parser.add_argument("--golden", type=Path, help="folder that keeps what the peers wrote")
    parser.add_argument("--json", action="store_true", help="print one JSON document")
    options = vars(parser.parse_args())
    lines, failed = [], []
    for peer in [peer for peer in PEERS if options[peer]]:
        try:
            lines += both_ways(peer, options[peer], options["golden"])
        except PeerFailed as failure:
            failed.append(str(failure))
    compared = [line for line in lines if "refused" not in line]
    bad = [line for line in compared if not max(line["codes"], line["reconstruction"]) <= TOLERANCE]
    if options["json"]:
        print(json.dumps({"tolerance": TOLERANCE, "checked": lines, "apart": len(bad), "failed": failed}, indent=1))
    else:
        for line in lines:
            numbers = line.get("refused") or f"codes {line['codes']:.1e}  reconstruction {line['reconstruction']:.1e}"
            print(f"{line['package']} {line['version']:<9} {line['way']:<8} {line['case']:<36} {numbers}")
        print(*failed, sep="\n", end="\n" if failed else "")
        print(f"{len(compared)} compared, {len(bad)} apart by more than {TOLERANCE}")
    return 1 if bad or failed or not compared else 0


if __name__ == "__main__":
    sys.exit(main())
