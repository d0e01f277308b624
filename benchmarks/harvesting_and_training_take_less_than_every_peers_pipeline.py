"""Claim: from tokens to a trained dictionary, this library takes less time and memory than any other pipeline.

A random model of GPT-2 small's size (12 blocks, width 768, 50,257 tokens; made and saved here, nothing is fetched) is
read after block 6; a TopK dictionary of 32 times the width with 32 active latents is trained on its states, 2048 rows a
step, the same texts of 128 random tokens for all. Each library does it with its own pipeline:
  overtone      fit() on an ActivationStream
  sae-lens      LanguageModelSAETrainingRunner without logging, on the model as it is in transformers
  eai-sparsify  Trainer, with Adam and without logging, on the model without its head (as its command line does)
Each is left its own way of shuffling (sparsify does not), auxiliary loss, initial values, schedule and saving.

Each run is a process of its own, in the Python that `--python NAME=PATH` names (make one per peer:
`python -m venv X && X/bin/pip install torch==2.13.0 sae-lens`); the libraries take turns, round by round. Reported:
seconds of processor time from the loaded model and tokens to the trained dictionary (median over rounds), its ratio to
overtone's, peak memory of the process, tokens trained on, unexplained share of other states of the site (it shows that
something was learned there, and compares nothing: learning rates differ), versions.

    python benchmarks/harvesting_and_training_take_less_than_every_peers_pipeline.py \\
        --python sae-lens=/tmp/x/bin/python --python eai-sparsify=/tmp/y/bin/python [--json]
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from typing import Any

import torch

NAMES = ("overtone", "sae-lens", "eai-sparsify")
Reconstruct = Callable[[torch.Tensor], torch.Tensor]
Pipeline = Callable[[], Reconstruct]
"""Harvest and train; what comes back maps states to what the dictionary makes of them."""


# --------------------------------------------------------------------------------------------------- the pipelines
def overtone(o: argparse.Namespace, model: Any, tokens: torch.Tensor) -> Pipeline:
    from overtone.activations.positions import AllTokens
    from overtone.activations.stream import ActivationStream
    from overtone.core.sites import Site
    from overtone.data.traces import ReasoningTrace
    from overtone.dictionaries.presets.top_k import TopK
    from overtone.models.hooked import HookedModel
    from overtone.training.fit import fit

    hooked = HookedModel.wrap(model, name="gpt2-random")
    texts = [ReasoningTrace((), tuple(row), i, str(i)) for i, row in enumerate(tokens.tolist())]

    def run() -> Reconstruct:
        site = Site("residual", o.layer)
        states = ActivationStream(hooked, texts, site, AllTokens(), tokens_per_pass=o.rows, quiet=True)
        made = fit(TopK(o.latents, k=o.active), states, n_tokens=tokens.numel(), batch_rows=o.rows, quiet=True)
        return made.dictionary.reconstruct

    return run


def sae_lens(o: argparse.Namespace, model: Any, tokens: torch.Tensor) -> Pipeline:
    from datasets import Dataset
    from sae_lens.config import LanguageModelSAERunnerConfig, LoggingConfig
    from sae_lens.llm_sae_training_runner import LanguageModelSAETrainingRunner
    from sae_lens.load_model import HookedProxyLM
    from sae_lens.saes.topk_sae import TopKTrainingSAEConfig

    name = f"transformer.h.{o.layer}"
    proxy = HookedProxyLM(model, None, hook_names=[name])  # type: ignore[arg-type]
    data = Dataset.from_dict({"input_ids": tokens.tolist()})
    settings = LanguageModelSAERunnerConfig(
        sae=TopKTrainingSAEConfig(d_in=model.config.n_embd, d_sae=o.latents, k=o.active), hook_name=name,
        model_name="gpt2-random", model_class_name="AutoModelForCausalLM", dataset_path="random", streaming=False,
        context_size=o.length, training_tokens=tokens.numel(), train_batch_size_tokens=o.rows,
        store_batch_size_prompts=o.rows // o.length, logger=LoggingConfig(log_to_wandb=False), checkpoint_path=None,
        output_path=None,
    )  # fmt: skip

    def run() -> Reconstruct:
        sae = LanguageModelSAETrainingRunner(settings, override_dataset=data, override_model=proxy).run()
        return lambda x: sae.decode(sae.encode(x))

    return run


def eai_sparsify(o: argparse.Namespace, model: Any, tokens: torch.Tensor) -> Pipeline:
    from datasets import Dataset
    from sparsify import SparseCoderConfig, TrainConfig, Trainer

    data = Dataset.from_dict({"input_ids": tokens.tolist()}).with_format("torch")
    settings = TrainConfig(
        SparseCoderConfig(num_latents=o.latents, k=o.active), batch_size=o.rows // o.length, layers=[o.layer],
        optimizer="adam", lr_warmup_steps=0, log_to_wandb=False, save_dir=str(Path(o.folder) / "sparsify"),
    )  # fmt: skip

    def run() -> Reconstruct:
        trainer = Trainer(settings, data, model.base_model)  # type: ignore[arg-type]
        trainer.fit()
        (sae,) = trainer.saes.values()
        return lambda x: sae(x).sae_out

    return run


PIPELINES = {"overtone": overtone, "sae-lens": sae_lens, "eai-sparsify": eai_sparsify}


# ------------------------------------------------------------------------------------------------------- one process
def work(o: argparse.Namespace) -> None:
    """Run one pipeline and say what it took, as the last line of standard output."""
    answers, sys.stdout = sys.stdout, sys.stderr
    torch.set_num_threads(o.threads)
    from safetensors.torch import load_file
    from transformers import AutoModelForCausalLM

    tokens = load_file(Path(o.folder) / "tokens.safetensors")
    model = AutoModelForCausalLM.from_pretrained(o.folder).eval()
    pipeline = PIPELINES[o.worker](o, model, tokens["train"])
    wall, spent = time.perf_counter(), time.process_time()
    reconstruct = pipeline()
    spent, wall = time.process_time() - spent, time.perf_counter() - wall
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    with torch.no_grad():
        x = model(tokens["held_out"], output_hidden_states=True).hidden_states[o.layer + 1].flatten(0, 1)
        missed = (x - reconstruct(x)).square().sum() / (x - x.mean(0)).square().sum()
    facts = {"seconds": spent, "wall_seconds": wall, "peak_mib": peak, "tokens": tokens["train"].numel(),
             "unexplained": float(missed), **versions(o.worker)}  # fmt: skip
    print(json.dumps(facts), file=answers, flush=True)


def versions(name: str) -> dict[str, str]:
    found = {"version": metadata.version(name), "torch": torch.__version__,
             "transformers": metadata.version("transformers")}  # fmt: skip
    if name == "overtone":
        from overtone.dictionaries.kernels.dispatch import kernels_for

        found["kernels"] = kernels_for("cpu").name
    return found


# ----------------------------------------------------------------------------------------------------------- the parent
def prepare(o: argparse.Namespace) -> None:
    """Save the model and the tokens."""
    from safetensors.torch import save_file
    from transformers import GPT2Config, GPT2LMHeadModel

    torch.manual_seed(0)
    model = GPT2LMHeadModel(GPT2Config())
    model.save_pretrained(o.folder)
    texts = torch.randint(model.config.vocab_size, ((o.tokens + 1024) // o.length, o.length))
    held_out = 1024 // o.length
    save_file({"train": texts[held_out:], "held_out": texts[:held_out].clone()}, Path(o.folder) / "tokens.safetensors")


def one_run(name: str, o: argparse.Namespace) -> dict[str, Any]:
    sizes = [f"--{key}={getattr(o, key)}" for key in (*SIZES, "folder")]
    environment = {**os.environ, "OMP_NUM_THREADS": str(o.threads), "MKL_NUM_THREADS": str(o.threads),
                   "HF_HUB_OFFLINE": "1", "WANDB_MODE": "disabled", "SPARSIFY_DISABLE_TRITON": "1"}  # fmt: skip
    done = subprocess.run(
        [o.pythons[name], __file__, "--worker", name, *sizes], stdout=subprocess.PIPE, text=True, env=environment,
        stderr=None if o.verbose else subprocess.PIPE, check=False,
    )  # fmt: skip
    if done.returncode:
        raise SystemExit(f"{name} failed:\n{(done.stderr or '')[-3000:]}")
    return json.loads(done.stdout.splitlines()[-1])


SIZES = {"layer": 6, "rows": 2048, "length": 128, "latents": 24_576, "active": 32, "tokens": 24_576, "threads": 1}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, default in {**SIZES, "rounds": 2}.items():
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--python", action="append", default=[], metavar="NAME=PATH", help="a peer and its Python")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--verbose", action="store_true", help="let the pipelines write to standard error")
    for hidden in ("--worker", "--folder"):
        parser.add_argument(hidden, help=argparse.SUPPRESS)
    o = parser.parse_args()
    if o.worker:
        work(o)
        return
    o.pythons = {"overtone": sys.executable} | dict(item.split("=", 1) for item in o.python)
    if unknown := set(o.pythons) - set(NAMES):
        parser.error(f"--python: no {', '.join(sorted(unknown))}; there are {', '.join(NAMES)}.")
    runs: dict[str, list[dict[str, Any]]] = {name: [] for name in NAMES if name in o.pythons}
    with tempfile.TemporaryDirectory() as o.folder:
        prepare(o)
        for _ in range(o.rounds):
            for name, found in runs.items():
                found.append(one_run(name, o))
    settings = {key: getattr(o, key) for key in (*SIZES, "rounds")}
    print_found(summary(runs), settings, as_json=o.json)


def summary(runs: dict[str, list[dict[str, Any]]]) -> dict[str, dict[str, Any]]:
    times = {name: statistics.median(run["seconds"] for run in found) for name, found in runs.items()}
    return {
        name: {**found[-1], "seconds": round(times[name], 2), "all_seconds": [round(r["seconds"], 2) for r in found],
               "times_overtone": round(times[name] / times["overtone"], 2),
               "peak_mib": round(max(r["peak_mib"] for r in found))}
        for name, found in runs.items()
    }  # fmt: skip


def print_found(found: dict[str, dict[str, Any]], settings: dict[str, int], *, as_json: bool) -> None:
    if as_json:
        print(json.dumps({"found": found, "settings": settings}, indent=1))
    else:
        print(*(f"{name}: {facts}" for name, facts in found.items()), f"settings: {settings}", sep="\n")


if __name__ == "__main__":
    main()
