"""Claim: where few latents are dead, AuxK by dense products with their rows takes less time than place by place.

At each number of dead latents three steps of top_k take turns on the same rows: none dead, the auxiliary term by dense
products, and place by place. Reported: milliseconds of processor time (median), what the term adds to the step either
way, and their ratio. The training decides by the number of dead latents for each that is decoded (`DENSE_WITH`); the
last line says which numbers it gives to dense products, and on which of these they were faster.

    python benchmarks/few_dead_latents_are_decoded_faster_by_dense_products.py [--dead 50 300 1000] [--json]
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from unittest.mock import patch

import torch

from overtone.dictionaries.kernels.dispatch import kernels_for
from overtone.dictionaries.presets.top_k import TopK
from overtone.training import step as steps
from overtone.training.run import Run
from overtone.training.schedules import Schedule

WAYS = {"none": 0, "dense": 10**9, "by_place": 0}


def measure(o: argparse.Namespace, dead: int) -> dict[str, float]:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(o.rows, o.width, generator=generator)
    preset = TopK(o.latents, k=o.active)
    run = Run("", preset, preset.build(o.width, generator).train(), lr=2e-4, schedule=Schedule(), n_tokens=10**9)
    run.begin(x)
    latents = torch.randperm(o.latents, generator=generator)[:dead].sort().values
    times: dict[str, list[float]] = {name: [] for name in WAYS}
    for round_ in range(o.rounds + 1):
        for name, dense_with in WAYS.items():
            run.firing.state["dead"] = latents[:0] if name == "none" else latents
            started = time.process_time()
            with patch.object(steps, "DENSE_WITH", dense_with):
                run.advance(x)
            if round_:
                times[name].append(1000 * (time.process_time() - started))
    ms = {name: statistics.median(values) for name, values in times.items()}
    added = {name: ms[name] - ms["none"] for name in ("dense", "by_place")}
    return {**ms, "dense_adds": added["dense"], "by_place_adds": added["by_place"],
            "times_faster": added["by_place"] / added["dense"]}  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, default in (
        ("rows", 4096), ("width", 512), ("latents", 8192), ("active", 32), ("rounds", 5), ("threads", 1),
    ):  # fmt: skip
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--dead", type=int, nargs="+", default=[50, 150, 300, 1000, 1500, 2500])
    parser.add_argument("--json", action="store_true")
    o = parser.parse_args()
    torch.set_num_threads(o.threads)
    found: dict[int, dict[str, float]] = {}
    for dead in o.dead:
        found[dead] = measure(o, dead)
        if not o.json:
            print(dead, {key: round(number, 2) for key, number in found[dead].items()}, flush=True)
    said = {dead: dead <= steps.DENSE_WITH * min(o.width // 2, dead) for dead in o.dead}
    right = {dead: said[dead] == (found[dead]["times_faster"] > 1) for dead in o.dead}
    if o.json:
        settings = {key: value for key, value in vars(o).items() if key != "json"}
        print(json.dumps({"found": found, "taken": said, "kernels": kernels_for("cpu").name, "settings": settings}))
    else:
        print("dense:", [dead for dead in o.dead if said[dead]], "rightly decided:", [d for d in o.dead if right[d]])


if __name__ == "__main__":
    main()
