"""Claim: beside the encoder's product, the work of a TopK step hardly depends on the number of latents.

Sweeps over latents (2048 to 65536 at fixed k), active latents and width; at each point a step of top_k, its product and
selection alone, and torch's product alone (in bf16 where the processor has it) take turns on the same rows. Reported:
milliseconds of processor time (median), step / torch's product, and the share of the step beside its product and
selection, which should fall as latents grow; what is left that grows with them is Adam and the writing of gradients,
once per batch.

    python benchmarks/what_a_step_adds_to_its_product_grows_slower_than_the_product.py [--rows 4096] [--json]
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable

import torch

from overtone.dictionaries.kernels.dispatch import kernels_for
from overtone.dictionaries.kernels.rounded_bf16 import BF16
from overtone.dictionaries.presets.top_k import TopK
from overtone.training.run import Run
from overtone.training.schedules import Schedule

BASE = {"latents": 8192, "active": 32, "width": 256}
SWEEPS = {
    "latents": (2048, 4096, 8192, 16384, 32768, 65536),
    "active": (8, 32, 128),
    "width": (128, 256, 512, 1024),
}


def ways(rows: int, latents: int, active: int, width: int) -> dict[str, Callable[[], object]]:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(rows, width, generator=generator)
    preset = TopK(latents, k=active)
    run = Run("", preset, preset.build(width, generator).train(), lr=2e-4, schedule=Schedule(), n_tokens=10**9)
    run.begin(x)
    kind = torch.bfloat16 if BF16.is_fast() else torch.float32
    a, b = x.to(kind), torch.randn(latents, width, generator=generator).to(kind)
    blocks, out = a.split(512), torch.empty(512, latents, dtype=kind)
    return {
        "step": lambda: run.advance(x),
        "selection": lambda: kernels_for("cpu").choose(
            run.model, run.model.normaliser(x) - run.model.centre(), beside={}, peaks=False
        ),
        "product": lambda: [torch.mm(block, b.T, out=out[: len(block)]) for block in blocks],
    }


def measure(rows: int, rounds: int, point: dict[str, int]) -> dict[str, float]:
    made = ways(rows, **point)
    times: dict[str, list[float]] = {name: [] for name in made}
    for round_ in range(rounds + 1):
        for name, way in made.items():
            started = time.process_time()
            way()
            if round_:
                times[name].append(1000 * (time.process_time() - started))
    ms = {name: statistics.median(values) for name, values in times.items()}
    beside = 1 - ms["selection"] / ms["step"]
    return {**ms, "over_product": ms["step"] / ms["product"], "share_beside_selection": beside}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, default in (("rows", 4096), ("rounds", 3), ("threads", 1)):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--json", action="store_true")
    o = parser.parse_args()
    torch.set_num_threads(o.threads)
    found: dict[str, dict[int, dict[str, float]]] = {}
    for axis, values in SWEEPS.items():
        for value in values:
            found.setdefault(axis, {})[value] = measure(o.rows, o.rounds, {**BASE, axis: value})
            if not o.json:
                print(axis, value, {key: round(number, 3) for key, number in found[axis][value].items()}, flush=True)
    if o.json:
        print(json.dumps({"found": found, "kernels": kernels_for("cpu").name, "base": BASE, "settings": vars(o)}))


if __name__ == "__main__":
    main()
