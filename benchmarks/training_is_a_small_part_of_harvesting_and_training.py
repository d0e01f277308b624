"""Claim: of harvesting and training together, training takes at most 30 %.

A random model of GPT-2 small's size (12 blocks, width 768, 50,257 tokens) is read at residual.6; a TopK dictionary of
32 times the width with 32 active latents takes a step on each batch of states. Also timed on the same tokens: the plain
forward pass of the whole model, which libraries pay that do not stop at the site. The three take turns, round by round.
Reported: milliseconds of processor time per batch (median) and ratios.

    python benchmarks/training_is_a_small_part_of_harvesting_and_training.py [--json]
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable
from typing import Any

import torch

from overtone.core.sites import Site
from overtone.dictionaries.kernels.dispatch import kernels_for
from overtone.dictionaries.presets.top_k import TopK
from overtone.models.hooked import HookedModel
from overtone.training.run import Run
from overtone.training.schedules import Schedule


def ways(o: argparse.Namespace) -> dict[str, Callable[[], object]]:
    from transformers import GPT2Config, GPT2LMHeadModel

    torch.manual_seed(0)
    model = HookedModel.wrap(GPT2LMHeadModel(GPT2Config()).eval(), name="gpt2-random")  # type: ignore
    tokens = torch.randint(model.vocab_size, (o.rows // o.length, o.length))
    site, plain = Site("residual", o.layer), model.model
    assert isinstance(plain, torch.nn.Module)

    def harvest() -> torch.Tensor:
        with torch.no_grad():
            return model.read(tokens, None, [site])[site].flatten(0, 1)

    def full() -> Any:
        with torch.no_grad():
            return plain(tokens, use_cache=False)

    states = harvest()
    preset = TopK(o.latents, k=o.active)
    start = torch.Generator().manual_seed(0)
    run = Run("", preset, preset.build(states.shape[1], start).train(), lr=2e-4, schedule=Schedule(), n_tokens=10**9)
    run.begin(states)
    return {"harvest": harvest, "train": lambda: run.advance(states), "full": full}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    numbers = {"layer": 6, "rows": 2048, "length": 128, "latents": 24_576, "active": 32, "rounds": 3, "threads": 1}
    for name, default in numbers.items():
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--json", action="store_true")
    o = parser.parse_args()
    torch.set_num_threads(o.threads)
    made = ways(o)
    times: dict[str, list[float]] = {name: [] for name in made}
    for round_ in range(o.rounds + 1):
        for name, way in made.items():
            started = time.process_time()
            way()
            if round_:
                times[name].append(1000 * (time.process_time() - started))
    ms = {name: statistics.median(values) for name, values in times.items()}
    found = {
        "ms_per_batch": {name: round(value, 1) for name, value in ms.items()},
        "training_share": round(ms["train"] / (ms["harvest"] + ms["train"]), 3),
        "harvest_of_full": round(ms["harvest"] / ms["full"], 3),
        "kernels": kernels_for("cpu").name,
        "settings": {key: value for key, value in vars(o).items() if key != "json"},
    }
    print(json.dumps(found) if o.json else "\n".join(f"{key}: {value}" for key, value in found.items()))


if __name__ == "__main__":
    main()
