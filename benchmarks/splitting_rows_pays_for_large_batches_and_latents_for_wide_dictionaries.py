"""Claim: of two processes, each works less than one would when rows of a large batch are split, or latents of a wide
dictionary, and with latents each holds less memory. The other way round it need not pay. For TopK the claim about large
batches does not hold where one process nominates with int8 products: what is exchanged takes what is shared (0.9 to
1.05). It holds by far where steps are dense.

Settings: "large batch", TopK with 32 active, 4096 rows of width 512, 8192 latents; "wide", the same with 256 rows of
width 256, 65536 latents; "dense", as the first, but ReLU with a price, half of the latents active. Ways, the same
training in each:
  alone     one process
  rows      two processes, each with half of every batch; they average gradients as large as the dictionary
  latents   two processes, each with half of the dictionary; they exchange reconstructions and nominees
Reported for the busier of the processes: milliseconds of processor time per step (median; waiting for the other one
costs little of it, and a busy machine changes it little), and what its resident memory grew by at most after the
imports, from building the dictionary to putting it together at the end; and the ratios of both to one process. Every
process has one torch thread.

    python benchmarks/splitting_rows_pays_for_large_batches_and_latents_for_wide_dictionaries.py [--steps 8] [--json]
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

from overtone.dictionaries.presets.relu_l1 import ReluL1
from overtone.dictionaries.presets.top_k import TopK
from overtone.training.fit import fit
from overtone.training.run import Run

SETTINGS = {
    "large batch": {"rows": 4096, "width": 512, "latents": 8192},
    "wide": {"rows": 256, "width": 256, "latents": 65536},
    "dense": {"rows": 4096, "width": 512, "latents": 8192, "active": 0},
}
WAYS = {"alone": "", "rows": "rows", "latents": "latents"}
WARM_UP = 2


def peak_mib() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def train(options: argparse.Namespace) -> dict[str, float]:
    """One process's processor time per step and growth of memory."""
    torch.set_num_threads(1)
    if options.split:
        dist.init_process_group("gloo", init_method=f"file://{options.meeting}", rank=options.rank, world_size=2)
    before, marks = peak_mib(), []
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(2 * options.rows, options.width, generator=generator)
    advance = Run.advance

    def timed(self: Run, x: torch.Tensor, y: torch.Tensor | None = None, g: torch.Tensor | None = None) -> None:
        marks.append(time.process_time())
        advance(self, x, y, g)

    Run.advance = timed
    steps = options.steps + WARM_UP + 1
    preset = TopK(options.latents, k=options.active) if options.active else ReluL1(options.latents)
    tokens, split = steps * options.rows, options.split or None
    fit(preset, x, n_tokens=tokens, batch_rows=options.rows, quiet=True, split=split)
    if options.split:
        dist.destroy_process_group()
    times = [1000 * (after - then) for then, after in zip(marks, marks[1:], strict=False)][WARM_UP:]
    return {"ms_per_step": statistics.median(times), "mib": peak_mib() - before}


def measured(split: str, steps: int, sizes: dict[str, int]) -> dict[str, float]:
    """The larger figures of the processes of one way."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, __file__, "--child", "--split", split, "--meeting", str(Path(folder) / "meeting")]
        for name, size in {**sizes, "steps": steps}.items():
            command += [f"--{name}", str(size)]
        children = [
            subprocess.Popen([*command, "--rank", str(rank)], stdout=subprocess.PIPE, text=True)
            for rank in range(2 if split else 1)
        ]
        found = [json.loads(child.communicate()[0]) for child in children]
    return {name: max(one[name] for one in found) for name in found[0]}


def compared(steps: int, sizes: dict[str, int]) -> dict[str, Any]:
    """All ways of one setting, and what part of one process's figures those of two are."""
    ways = {name: measured(split, steps, sizes) for name, split in WAYS.items()}
    alone = ways["alone"]
    ratios = {way: {name: ways[way][name] / alone[name] for name in alone} for way in ("rows", "latents")}
    return {"sizes": sizes, "ways": ways, "of_one_process": ratios}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=8)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    for name in ("rows", "width", "latents", "rank"):
        parser.add_argument(f"--{name}", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--active", type=int, default=32, help=argparse.SUPPRESS)
    for name in ("split", "meeting"):
        parser.add_argument(f"--{name}", default="", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        print(json.dumps(train(options)))
        return
    found = {name: compared(options.steps, sizes) for name, sizes in SETTINGS.items()}
    print(json.dumps(found, indent=1) if options.json else "\n".join(f"{key}: {value}" for key, value in found.items()))


if __name__ == "__main__":
    main()
