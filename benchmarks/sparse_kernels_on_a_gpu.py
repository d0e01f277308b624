"""Claim: on a GPU, a training step takes at most 1.5 times its bf16 encoder product, and is faster than sparsify's.

Needs a CUDA device, and says so where there is none. Ways, one training step each on the same rows (width 4096, 65536
latents, 64 active, 4096 rows by default):
  product    the encoder's forward product in bf16 alone: the floor
  triton     overtone's step with the Triton kernels (where Triton is installed)
  exact      the same where torch may not round operands of products: the choice and all sums are those of float32
  torch      overtone's step with torch's own kernels
  dense      TopK written with dense products under bf16 autocast, torch's own gradients and fused Adam
  sparsify   sparsify's forward, loss, backward and Adam, under its bf16 autocast (where it is installed)
  sae_lens   SAELens's TopK training step, under bf16 autocast (where it is installed)
Every step includes clipping or renormalisation as its library does it by default. The ways take turns of --steps steps,
timed by CUDA events. Reported: median milliseconds per step, ratios to the product, times as fast as each peer, peak
memory of each way. What does not fit into the GPU's memory is left out and named.

    python benchmarks/sparse_kernels_on_a_gpu.py [--rows 32768 --latents 131072 --ways triton sparsify] [--json]
Torch may round operands of float32 products to 11 bits, as TF32 does (--precision high); highest for true float32.
On a CPU, `--device cpu` only tries the script out: use it with small sizes, its times mean nothing.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable
from importlib.metadata import version
from importlib.util import find_spec
from typing import Any
from unittest.mock import patch

import torch
from torch.nn.functional import linear, normalize

from overtone.dictionaries.kernels import dispatch, sparse
from overtone.dictionaries.presets.top_k import TopK
from overtone.training import step as steps
from overtone.training.run import Run
from overtone.training.schedules import Schedule

Step = Callable[[torch.Tensor], Any]
LR = 2e-4


def product(options: argparse.Namespace, x: torch.Tensor) -> Step:
    weight = torch.randn(options.latents, options.width, device=x.device, dtype=torch.bfloat16)
    return lambda rows: rows.bfloat16() @ weight.T


def ours(options: argparse.Namespace, x: torch.Tensor) -> Run:
    preset = TopK(options.latents, k=options.active)
    dictionary = preset.build(options.width, torch.Generator().manual_seed(0)).to(x.device).train()
    run = Run("top_k", preset, dictionary, lr=LR, schedule=Schedule(), n_tokens=10**9)
    run.begin(x)
    return run


def triton(options: argparse.Namespace, x: torch.Tensor) -> Step:
    return ours(options, x).advance


def exact(options: argparse.Namespace, x: torch.Tensor) -> Step:
    run = ours(options, x)

    def step(rows: torch.Tensor) -> None:
        torch.set_float32_matmul_precision("highest")
        run.advance(rows)
        torch.set_float32_matmul_precision(options.precision)

    return step


def torch_only(options: argparse.Namespace, x: torch.Tensor) -> Step:
    run, kernels = ours(options, x), dispatch.Kernels("torch", *sparse.FUNCTIONS)

    def step(rows: torch.Tensor) -> None:
        with patch.object(steps, "kernels_for", lambda device: kernels):
            run.advance(rows)

    return step


def dense(options: argparse.Namespace, x: torch.Tensor) -> Step:
    atoms = normalize(torch.randn(options.latents, options.width, device=x.device), dim=1)
    start = atoms, atoms.clone(), torch.zeros(options.latents, device=x.device), x.mean(0)
    encoder, decoder, bias, centre = parameters = [torch.nn.Parameter(p) for p in start]
    optimiser = torch.optim.Adam(parameters, lr=LR, fused=True)

    def step(rows: torch.Tensor) -> None:
        with torch.autocast(rows.device.type, dtype=torch.bfloat16):
            u = linear(rows - centre, encoder, bias)
            values, places = u.topk(options.active)
            x_hat = torch.zeros_like(u).scatter(1, places, values.relu()) @ decoder + centre
        ((x_hat - rows).square().sum() / rows.square().sum()).backward()
        optimiser.step()
        optimiser.zero_grad()
        with torch.no_grad():
            decoder.div_(decoder.norm(dim=1, keepdim=True))

    return step


def sparsify(options: argparse.Namespace, x: torch.Tensor) -> Step:
    from sparsify import SparseCoder, SparseCoderConfig

    config = SparseCoderConfig(num_latents=options.latents, k=options.active)
    coder = SparseCoder(options.width, config, device=x.device)
    optimiser = torch.optim.Adam(coder.parameters(), lr=LR, fused=True)

    def step(rows: torch.Tensor) -> None:
        coder(rows).fvu.backward()
        coder.remove_gradient_parallel_to_decoder_directions()
        optimiser.step()
        optimiser.zero_grad()
        coder.set_decoder_norm_to_unit_norm()

    return step


def sae_lens(options: argparse.Namespace, x: torch.Tensor) -> Step:
    from sae_lens import TopKTrainingSAE, TopKTrainingSAEConfig
    from sae_lens.saes.sae import TrainStepInput

    config = TopKTrainingSAEConfig(
        d_in=options.width, d_sae=options.latents, k=options.active, device=str(x.device), dtype="float32"
    )
    sae = TopKTrainingSAE(config)
    optimiser = torch.optim.Adam(sae.parameters(), lr=LR, fused=True)
    dead = torch.zeros(options.latents, dtype=torch.bool, device=x.device)

    def step(rows: torch.Tensor) -> None:
        with torch.autocast(rows.device.type, dtype=torch.bfloat16):
            given = TrainStepInput(
                sae_in=rows, coefficients={}, dead_neuron_mask=dead, n_training_steps=0, is_logging_step=False
            )
            loss = sae.training_forward_pass(given).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(sae.parameters(), 1.0)
        optimiser.step()
        optimiser.zero_grad()

    return step


WAYS = {"product": product, "triton": triton, "exact": exact, "torch": torch_only, "dense": dense,
        "sparsify": sparsify, "sae_lens": sae_lens}  # fmt: skip


def present(device: torch.device, asked: list[str]) -> list[str]:
    """The ways that can be tried here, of those asked for; the floor always."""
    missing = {name for name in ("sparsify", "sae_lens") if find_spec(name) is None}
    if device.type != "cuda" or find_spec("triton") is None:
        missing |= {"triton", "exact"}
    return [name for name in WAYS if name not in missing and (name in asked or name == "product")]


def timed_ms(step: Step, rows: torch.Tensor, n: int) -> float:
    """Milliseconds of one of n steps in a row."""
    if rows.device.type != "cuda":
        started = time.perf_counter()
        for _ in range(n):
            step(rows)
        return 1000 * (time.perf_counter() - started) / n
    before, after = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    before.record()
    for _ in range(n):
        step(rows)
    after.record()
    torch.cuda.synchronize()
    return before.elapsed_time(after) / n


def measure(options: argparse.Namespace, device: torch.device) -> dict[str, Any]:
    x = torch.randn(2 * options.rows, options.width, generator=torch.Generator().manual_seed(0)).to(device)
    ways = {name: WAYS[name](options, x) for name in present(device, options.ways)}
    times: dict[str, list[float]] = {name: [] for name in ways}
    peaks: dict[str, float] = {}
    for turn in range(options.rounds + options.warm_up):
        rows = x[(turn % 2) * options.rows :][: options.rows]
        for name in list(ways):
            if device.type == "cuda":
                torch.cuda.reset_peak_memory_stats()
                resident = torch.cuda.memory_allocated()
            try:
                ms = timed_ms(ways[name], rows, options.steps)
            except torch.OutOfMemoryError:
                del ways[name]
                torch.cuda.empty_cache()
                continue
            if turn >= options.warm_up:
                times[name].append(ms)
                if device.type == "cuda":  # beyond parameters and moments of all ways, which stay
                    peaks[name] = (torch.cuda.max_memory_allocated() - resident) / 2**20
    too_large, times = [name for name in times if name not in ways], {name: times[name] for name in ways}
    ms = {name: statistics.median(found) for name, found in times.items()}
    best = ms.get("triton", ms.get("torch", float("nan")))
    return {
        "ms_per_step": ms,
        "over_product": {name: value / ms["product"] for name, value in ms.items()},
        "faster_than": {name: ms[name] / best for name in ("torch", "dense", "sparsify", "sae_lens") if name in ms},
        "step_mib": peaks,
        "did_not_fit": too_large,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, default in (
        ("rows", 4096), ("width", 4096), ("latents", 65536), ("active", 64), ("rounds", 20), ("warm-up", 5),
        ("steps", 4),
    ):  # fmt: skip
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--ways", nargs="+", choices=list(WAYS), default=list(WAYS))
    parser.add_argument("--precision", choices=["highest", "high"], default="high")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    device = torch.device(options.device)
    torch.set_float32_matmul_precision(options.precision)
    if device.type == "cuda" and not torch.cuda.is_available():
        found: dict[str, Any] = {"skipped": "no CUDA device here: run this on a machine with a GPU."}
    else:
        found = measure(options, device)
        named = torch.cuda.get_device_name() if device.type == "cuda" else "CPU: a trial of the script, no measurement"
        packages = {name: version(name) for name in ("torch", "triton", "eai-sparsify", "sae-lens") if _installed(name)}
        found |= {"device": named, "versions": packages}
    found["settings"] = {key: value for key, value in vars(options).items() if key != "json"}
    print(json.dumps(found, indent=1) if options.json else "\n".join(f"{key}: {value}" for key, value in found.items()))


def _installed(distribution: str) -> bool:
    from importlib.metadata import PackageNotFoundError

    try:
        return bool(version(distribution))
    except PackageNotFoundError:
        return False


if __name__ == "__main__":
    main()
