"""Claim: a sparse step makes one dense product and keeps few matrices of rows x latents; nothing here is timed.

For each preset that is trained by steps and each kind of kernels: dense products in units of rows x latents x width,
the most rows x latents matrices alive at a time, and waits for the device, in the third step from the initial weights.
Products inside the compiled kernels are not torch's and count 0; a rectifier whose latents are half active at first
takes dense steps.

    python benchmarks/a_sparse_step_makes_one_dense_product.py [--json]
"""

from __future__ import annotations

import argparse
import json
import os

import torch

from overtone.core.catalogue import entries
from overtone.core.seeds import torch_generator
from overtone.dictionaries.kernels.dispatch import kernels_for
from overtone.training.counting import Counting
from overtone.training.run import Run
from overtone.training.schedules import Schedule


def count(preset, rows: int, width: int) -> dict[str, float]:
    generator = torch_generator(0, "counting")
    x = torch.randn(rows, width, generator=generator)
    run = Run("", preset, preset.build(width, generator).train(), lr=1e-3, schedule=Schedule(), n_tokens=10**6)
    beside = {"g": x.sin()} if "g" in preset.needs else {}
    beside |= {"y": x.roll(1, 1)} if "y" in preset.needs else {}
    run.begin(x, beside.get("y"))
    for _ in range(2):
        run.advance(x, **beside)
    with Counting(rows, preset.n_latents, width) as cost:
        run.advance(x, **beside)
    return {"products": round(cost.products, 2), "matrices": cost.matrices, "waits": cost.waits}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, default in (("rows", 2048), ("width", 64), ("latents", 2048), ("active", 16)):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--json", action="store_true")
    o = parser.parse_args()
    torch.set_num_threads(1)
    found: dict[str, dict[str, dict[str, float]]] = {}
    for kind in ("plain", "torch", "auto"):
        os.environ["OVERTONE_KERNELS"] = kind
        label = {"plain": "plain", "torch": kernels_for("cpu").name, "auto": kernels_for("cpu").name}[kind]
        for name, entry in entries("dictionaries").items():
            if not entry.thing.whole:
                preset = entry.thing.example(n_latents=o.latents, k=o.active)
                found.setdefault(name, {})[label] = count(preset, o.rows, o.width)
    if o.json:
        print(json.dumps({"found": found, "settings": vars(o)}, indent=1))
        return
    for name, kinds in found.items():
        print(f"{name:20s}", *(f"{kind}: {cost}" for kind, cost in kinds.items()), sep="\n    ")


if __name__ == "__main__":
    main()
