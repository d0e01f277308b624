"""Claim: a training step costs little more than its encoder product, and several times less than a dense step.

Ways, one training step each on the same rows (width 512, 8192 latents, 32 active, 4096 rows by default):
  product   the encoder's forward product alone, in float32
  bf16      the same in bf16: the floor
  top_k     overtone's step of that preset: product, selection, exact sparse gradients, Adam, unit rows
  batch     the same for batch_top_k
  dense     TopK written with dense products and torch's own gradients and fused Adam: what it takes without sparsity
The ways take turns, step by step. Reported: milliseconds per step (median; of processor time, which with one thread a
busy machine changes little, or with --clock wall of a clock), the ratios to both products, and each preset's peak
memory in a process of its own.

    python benchmarks/a_sparse_training_step_is_little_more_than_its_encoder_product.py [--rows 4096] [--json]
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable

import torch
from torch.nn.functional import linear, normalize

from overtone.dictionaries.preset import Preset
from overtone.dictionaries.presets.batch_top_k import BatchTopK
from overtone.dictionaries.presets.top_k import TopK
from overtone.training.run import Run
from overtone.training.schedules import Schedule

Step = Callable[[torch.Tensor], object]
PRODUCTS = {"product": torch.float32, "bf16": torch.bfloat16}


def ours(preset: Preset, x: torch.Tensor) -> Step:
    generator = torch.Generator().manual_seed(0)
    run = Run(
        preset.name, preset, preset.build(x.shape[1], generator).train(), lr=2e-4, schedule=Schedule(), n_tokens=10**9
    )
    run.begin(x[:8192])
    return run.advance


def dense(preset: TopK, x: torch.Tensor) -> Step:
    atoms = normalize(torch.randn(preset.n_latents, x.shape[1]), dim=1)
    start = (atoms, atoms.clone(), torch.zeros(preset.n_latents), x.mean(0))
    encoder, decoder, bias, centre = parameters = [torch.nn.Parameter(p) for p in start]
    optimiser = torch.optim.Adam(parameters, lr=2e-4, fused=True)

    def step(rows: torch.Tensor) -> None:
        u = linear(rows - centre, encoder, bias)
        values, places = u.topk(preset.k)
        x_hat = torch.zeros_like(u).scatter(1, places, values.relu()) @ decoder + centre
        ((x_hat - rows).square().sum() / len(rows)).backward()
        with torch.no_grad():
            assert decoder.grad is not None
            decoder.grad -= (decoder.grad * decoder).sum(1, keepdim=True) * decoder
            optimiser.step()
            optimiser.zero_grad()
            decoder.div_(decoder.norm(dim=1, keepdim=True))

    return step


def product(preset: TopK, x: torch.Tensor, dtype: torch.dtype) -> Step:
    encoder = torch.randn(preset.n_latents, x.shape[1]).to(dtype)
    out = torch.empty(0)

    def step(rows: torch.Tensor) -> None:
        nonlocal out
        out = out if len(out) == len(rows) else torch.empty(len(rows), preset.n_latents, dtype=dtype)
        torch.mm(rows.to(dtype), encoder.T, out=out)

    return step


def make(name: str, options: argparse.Namespace, x: torch.Tensor) -> Step:
    preset = TopK(options.latents, k=options.active)
    if name == "batch":
        return ours(BatchTopK(options.latents, k=options.active), x)
    if name in PRODUCTS:
        return product(preset, x, PRODUCTS[name])
    return {"top_k": ours, "dense": dense}[name](preset, x)


def median_ms(options: argparse.Namespace, names: list[str]) -> dict[str, float]:
    generator = torch.Generator().manual_seed(0)
    mix = torch.randn(options.width, options.width, generator=generator)
    x = torch.randn(2 * options.rows, options.width, generator=generator) @ mix
    steps = {name: make(name, options, x) for name in names}
    times: dict[str, list[float]] = {name: [] for name in names}
    clock = {"processor": time.process_time, "wall": time.perf_counter}[options.clock]
    for round_ in range(options.rounds + 2):
        rows = x[(round_ % 2) * options.rows :][: options.rows]
        for name, step in steps.items():
            started = clock()
            step(rows)
            if round_ >= 2:
                times[name].append(1000 * (clock() - started))
    return {name: statistics.median(values) for name, values in times.items()}


def peak_mib(options: argparse.Namespace, name: str) -> float:
    """Peak memory of a process that does nothing else than a few steps of one way."""
    command = [sys.executable, __file__, "--only", name, "--rounds", "1"]
    for option in ("rows", "width", "latents", "active"):
        command += [f"--{option}", str(getattr(options, option))]
    return float(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, default in (
        ("rows", 4096),
        ("width", 512),
        ("latents", 8192),
        ("active", 32),
        ("rounds", 5),
        ("threads", 1),
    ):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--clock", choices=("processor", "wall"), default="processor")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--only", help=argparse.SUPPRESS)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    if options.only:
        import resource

        median_ms(options, [options.only])
        print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)
        return
    names = [*PRODUCTS, "top_k", "batch", "dense"]
    # First: a child process starts with the peak that its parent has reached, which is small now.
    peaks = {name: peak_mib(options, name) for name in ("top_k", "batch", "dense")}
    ms = median_ms(options, names)
    found = {
        "ms_per_step": ms,
        **{f"over_{product}": {name: ms[name] / ms[product] for name in names} for product in PRODUCTS},
        "faster_than_dense": {name: ms["dense"] / ms[name] for name in names},
        "peak_mib": peaks,
        "settings": {key: value for key, value in vars(options).items() if key not in ("json", "only")},
    }
    print(json.dumps(found, indent=1) if options.json else "\n".join(f"{key}: {value}" for key, value in found.items()))


if __name__ == "__main__":
    main()
