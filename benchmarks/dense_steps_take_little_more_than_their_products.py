"""Claim: a dense training step of every kind takes less than 1.8 times the processor time of the dense products that it
cannot do without.

Kinds whose steps are dense where many latents are active: relu_l1, jump_relu, gated, gba, and p_annealing with its
power at 1, in the middle ("falling") and just before it falls ("measured", when the penalty's size with two powers is
added up). Settings: 4096 rows of width 512, 8192 latents, random states with a random covariance, initial weights, so
that half of the latents are active. Products: two forward and three backward, or seven for gated, of rows x width x
latents. Reported: milliseconds of processor time of a step (least of all steps and rounds), of the products by the
kernels that training uses, their ratio, and the peak of the process's resident memory in MiB (a matrix of rows x
latents would take 128 of it). Each kind has a process and one torch thread; rounds take turns.

    python benchmarks/dense_steps_take_little_more_than_their_products.py [--rounds 3] [--steps 4] [--json]
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import time

import torch

from overtone.core.seeds import torch_generator
from overtone.dictionaries.kernels import dense
from overtone.dictionaries.maintainers.annealing import Annealing
from overtone.dictionaries.preset import Preset
from overtone.dictionaries.presets.gated import Gated
from overtone.dictionaries.presets.gba import GBA
from overtone.dictionaries.presets.jump_relu import JumpReLU
from overtone.dictionaries.presets.p_annealing import PAnnealing
from overtone.dictionaries.presets.relu_l1 import ReluL1
from overtone.training.run import Run
from overtone.training.schedules import Schedule

ROWS, WIDTH, LATENTS = 4096, 512, 8192
KINDS: dict[str, tuple[Preset, int]] = {
    "relu_l1": (ReluL1(LATENTS), 5),
    "jump_relu": (JumpReLU(LATENTS), 5),
    "gated": (Gated(LATENTS), 7),
    "gba": (GBA(LATENTS), 5),
    "p_annealing": (PAnnealing(LATENTS), 5),
    "p_annealing, falling": (PAnnealing(LATENTS, start=0.0), 5),
    "p_annealing, measured": (PAnnealing(LATENTS, start=0.0), 5),
}


def hold_the_power(run: Run, *, near: bool) -> None:
    """Keep p at 0.5; near: as if it fell next."""
    for maintainer in run.maintainers:
        if isinstance(maintainer, Annealing):
            maintainer.state["p"].fill_(0.5)
            maintainer.power = lambda progress: 0.4 if near and progress > run.tokens / run.n_tokens else 0.5


def one(kind: str, steps: int) -> dict[str, float]:
    """Times in ms and the peak in MiB of this process."""
    torch.set_num_threads(1)
    preset, products = KINDS[kind]
    generator = torch_generator(0, "states")
    x = torch.randn(ROWS, WIDTH, generator=generator) @ torch.randn(WIDTH, WIDTH, generator=generator) / WIDTH**0.5
    dictionary = preset.build(WIDTH, torch_generator(0, "dictionary")).train()
    run = Run(kind, preset, dictionary, lr=1e-4, schedule=Schedule(), n_tokens=1000 * ROWS)
    run.begin(x)
    if "," in kind:
        hold_the_power(run, near=kind.endswith("measured"))
    step = least(lambda: run.advance(x), steps)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    weight = run.model.decoder.rows().detach()
    product = least(lambda: [dense.product(part, weight) for part in x.split(512)], steps)
    return {"step_ms": 1e3 * step, "products_ms": 1e3 * product * products, "peak_mib": peak}


def least(work, steps: int) -> float:
    """The least processor time of some runs, after one more, in seconds."""
    times = []
    for _ in range(steps + 1):
        start = time.process_time()
        work()
        times.append(time.process_time() - start)
    return min(times[1:])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=4)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--kind", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.kind:
        print(json.dumps(one(options.kind, options.steps)))
        return
    found: dict[str, list[dict[str, float]]] = {kind: [] for kind in KINDS}
    for _ in range(options.rounds):
        for kind in KINDS:
            command = [sys.executable, __file__, "--kind", kind, "--steps", str(options.steps)]
            found[kind].append(json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout))
    best = {kind: {name: min(one[name] for one in rounds) for name in rounds[0]} for kind, rounds in found.items()}
    for numbers in best.values():
        numbers["times_products"] = numbers["step_ms"] / numbers["products_ms"]
    if options.json:
        print(json.dumps(best, indent=2))
        return
    for kind, n in best.items():
        print(
            f"{kind:22} {n['step_ms']:6.0f} ms, products {n['products_ms']:6.0f} ms: {n['times_products']:.2f} times; "
            f"{n['peak_mib']:.0f} MiB"
        )


if __name__ == "__main__":
    main()
