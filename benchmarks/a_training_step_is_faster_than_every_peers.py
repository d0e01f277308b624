"""Claim: a training step takes less time, and less memory, than the same step of any other library.

One step on the same rows (width 512, 8192 latents, 32 active, 4096 rows by default), each library's own code for it:
forward, loss, backward, bound on the gradient or projection where it has one, Adam, unit rows where it has them.
  overtone, overtone-torch   this library with its fastest kernels, and without a compiler
  sae-lens                   SAETrainer._train_step of the TopK, BatchTopK, Standard, JumpReLU or Gated training SAE
  eai-sparsify               SparseCoder.forward and the trainer's update (TopK only)
  dictionary-learning        update() of its trainer
  overcomplete               the body of train_sae's loop, with Adam (no gated kind)
  product, product-bf16      the encoder's product alone, in torch: floors
g_sae, which no peer has, is compared with their TopK steps. Its gradients are random, as the states are by default.
relu, jumprelu and gated are timed twice: from the initial weights, where half of the latents are active and everybody's
step is dense, and, for those libraries whose bias or threshold is a parameter, with one that leaves about k active per
row. All start from initial weights; with --trained N each library first takes N steps of its own that do not count
(k-th best scores differ more from row to row then, and steps take longer). That means most on real states: --states
FILE reads a .safetensors file of one (rows, width) array, whose batches are taken in turn, instead of random ones.

Each library runs in a process of its own, in the Python that `--python NAME=PATH` names (make one per peer:
`python -m venv X && X/bin/pip install torch==2.13.0 sae-lens`); peers without a Python are left out. The processes take
turns of some steps each, round after round; the first step of a turn, which finds in the caches what others have left
there, does not count, unless turns are of one step (--steps 1): then it shows what that costs. Reported: milliseconds
per step (median; of processor time, or with --clock wall of a clock, for several threads on a quiet machine), ratios to
overtone, peak memory of the process, versions.

    python benchmarks/a_training_step_is_faster_than_every_peers.py --python sae-lens=/tmp/x/bin/python [--json]
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import json
import os
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from importlib import metadata

import torch

METHODS = ("top_k", "g_sae", "batch_top_k", "relu", "jumprelu", "gated")
PEERS = ("sae-lens", "eai-sparsify", "dictionary-learning", "overcomplete")
OURS = ("overtone", "overtone-torch", "product", "product-bf16")
Step = Callable[[torch.Tensor], object]


# --------------------------------------------------------------------------------------------------------- the workers
def overtone(o: argparse.Namespace, x: torch.Tensor) -> Step:
    from overtone.dictionaries.preset import Preset
    from overtone.training.run import Run
    from overtone.training.schedules import Schedule

    preset = our_preset(o)
    assert isinstance(preset, Preset)
    run = Run("", preset, preset.build(o.width, torch.Generator().manual_seed(0)).train(), lr=2e-4,
              schedule=Schedule(warm_up=0.0) if o.trained else Schedule(), n_tokens=10**9)  # fmt: skip
    run.begin(x)
    if o.method == "g_sae":
        slopes = itertools.cycle(random_rows(o, seed=1).split(o.rows))
        return lambda rows: run.advance(rows, None, next(slopes))
    if o.sparse:
        with torch.no_grad():
            model = run.model
            u = torch.nn.functional.linear(
                model.normaliser(x[:512]) - model.centre(), *model.encoder.affine(model.decoder)
            )
            model.encoder.affine(model.decoder)[1].sub_(threshold(o, u))
    return run.advance


def our_preset(o: argparse.Namespace) -> object:
    from overtone.core.catalogue import lookup

    name = {"relu": "relu_l1", "jumprelu": "jump_relu"}.get(o.method, str(o.method))
    return lookup("dictionaries", name).thing.example(n_latents=o.latents, k=o.active)


def product(o: argparse.Namespace, x: torch.Tensor) -> Step:
    kind = torch.bfloat16 if o.worker == "product-bf16" else torch.float32
    encoder, out = torch.randn(o.latents, o.width, dtype=kind), torch.empty(o.rows, o.latents, dtype=kind)
    return lambda rows: torch.mm(rows.to(kind), encoder.T, out=out)


def sae_lens(o: argparse.Namespace, x: torch.Tensor) -> Step:
    from sae_lens.config import SAETrainerConfig
    from sae_lens.saes.batchtopk_sae import BatchTopKTrainingSAE, BatchTopKTrainingSAEConfig
    from sae_lens.saes.gated_sae import GatedTrainingSAE, GatedTrainingSAEConfig
    from sae_lens.saes.jumprelu_sae import JumpReLUTrainingSAE, JumpReLUTrainingSAEConfig
    from sae_lens.saes.standard_sae import StandardTrainingSAE, StandardTrainingSAEConfig
    from sae_lens.saes.topk_sae import TopKTrainingSAE, TopKTrainingSAEConfig
    from sae_lens.training.sae_trainer import SAETrainer

    size = {"d_in": o.width, "d_sae": o.latents}
    sae = {
        "top_k": lambda: TopKTrainingSAE(TopKTrainingSAEConfig(k=o.active, **size)),
        "batch_top_k": lambda: BatchTopKTrainingSAE(BatchTopKTrainingSAEConfig(k=o.active, **size)),
        "relu": lambda: StandardTrainingSAE(StandardTrainingSAEConfig(**size)),
        "jumprelu": lambda: JumpReLUTrainingSAE(JumpReLUTrainingSAEConfig(**size)),
        "gated": lambda: GatedTrainingSAE(GatedTrainingSAEConfig(**size)),
    }[o.method]()
    if o.sparse:
        bias = sae.b_gate if o.method == "gated" else sae.b_enc
        bias.data.sub_(threshold(o, sae.encode_with_hidden_pre(x[:512])[1]))
    settings = SAETrainerConfig(total_training_samples=10**9, train_batch_size_samples=o.rows, lr_end=3e-5)
    trainer = SAETrainer(settings, sae, iter(()))
    return lambda rows: trainer._train_step(sae, rows)


def eai_sparsify(o: argparse.Namespace, x: torch.Tensor) -> Step:
    os.environ["SPARSIFY_DISABLE_TRITON"] = "1"
    from sparsify import SparseCoder, SparseCoderConfig

    sae = SparseCoder(o.width, SparseCoderConfig(num_latents=o.latents, k=o.active), dtype=torch.float32)
    adam, idle = torch.optim.Adam(sae.parameters(), lr=2e-4), torch.zeros(o.latents, dtype=torch.long)

    def step(rows: torch.Tensor) -> None:
        sae.set_decoder_norm_to_unit_norm()
        out = sae(rows, dead_mask=None)
        out.fvu.backward()
        fired = torch.zeros(o.latents, dtype=torch.bool)
        fired[out.latent_indices.flatten()] = True
        idle.add_(len(rows))[fired] = 0
        sae.remove_gradient_parallel_to_decoder_directions()
        adam.step()
        adam.zero_grad()

    return step


def dictionary_learning(o: argparse.Namespace, x: torch.Tensor) -> Step:
    from dictionary_learning.trainers.batch_top_k import BatchTopKTrainer
    from dictionary_learning.trainers.gdm import GatedSAETrainer
    from dictionary_learning.trainers.jumprelu import JumpReluTrainer
    from dictionary_learning.trainers.standard import StandardTrainer
    from dictionary_learning.trainers.top_k import TopKTrainer

    kinds = {
        "top_k": TopKTrainer,
        "batch_top_k": BatchTopKTrainer,
        "relu": StandardTrainer,
        "jumprelu": JumpReluTrainer,
        "gated": GatedSAETrainer,
    }
    more = {"k": o.active} if "top_k" in o.method else {}
    trainer = kinds[o.method](
        steps=10**6, activation_dim=o.width, dict_size=o.latents, layer=0, lm_name="none", device="cpu", **more
    )
    if o.sparse and o.method == "relu":
        trainer.ae.encoder.bias.data.sub_(threshold(o, trainer.ae.encoder(x[:512] - trainer.ae.bias)))
    elif o.sparse and o.method == "gated":
        trainer.ae.gate_bias.data.sub_(threshold(o, trainer.ae.encoder(x[:512] - trainer.ae.decoder_bias)))
    elif o.sparse:
        trainer.ae.b_enc.data.sub_(threshold(o, x[:512] @ trainer.ae.W_enc))
    numbers = itertools.count(1)  # number 0 computes a geometric median first
    return lambda rows: trainer.update(next(numbers), rows)


def overcomplete(o: argparse.Namespace, x: torch.Tensor) -> Step:
    from overcomplete.sae import SAE, BatchTopKSAE, JumpSAE, TopKSAE
    from overcomplete.sae.losses import mse_l1
    from overcomplete.sae.trackers import DeadCodeTracker

    kinds = {"top_k": TopKSAE, "batch_top_k": BatchTopKSAE, "relu": SAE, "jumprelu": JumpSAE}
    budget = {"top_k": o.active, "batch_top_k": o.active * o.rows}
    more = {"top_k": budget[o.method]} if o.method in budget else {}
    model = kinds[o.method](o.width, o.latents, **more).train()
    adam, dead = torch.optim.Adam(model.parameters(), lr=2e-4), DeadCodeTracker(o.latents, "cpu")

    def step(rows: torch.Tensor) -> None:
        adam.zero_grad()
        before, codes, x_hat = model(rows)
        loss = mse_l1(rows, x_hat, before, codes, model.get_dictionary(), penalty=0.1)
        dead.update(codes)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        adam.step()

    return step


def threshold(o: argparse.Namespace, u: torch.Tensor) -> torch.Tensor:
    """What leaves k latents active per row."""
    return u.detach().flatten()[::7].quantile(1 - o.active / o.latents)


MAKERS = {
    "overtone": overtone, "overtone-torch": overtone, "product": product, "product-bf16": product,
    "sae-lens": sae_lens, "eai-sparsify": eai_sparsify, "dictionary-learning": dictionary_learning,
    "overcomplete": overcomplete,
}  # fmt: skip


def random_rows(o: argparse.Namespace, seed: int) -> torch.Tensor:
    """Two batches of normal rows with a random covariance."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(2 * o.rows, o.width, generator=generator) @ torch.randn(o.width, o.width, generator=generator)
    return x / o.width**0.5


def states(o: argparse.Namespace) -> torch.Tensor:
    """The rows of a file in a random order, the same for all, or two batches of random rows."""
    if not o.states:
        return random_rows(o, seed=0)
    from safetensors.torch import load_file

    (x,) = load_file(o.states).values()
    return x.float()[torch.randperm(len(x), generator=torch.Generator().manual_seed(0))]


def work(o: argparse.Namespace) -> None:
    """Prepare, then for each line on standard input make a step and say how long it took."""
    answers, sys.stdout = sys.stdout, sys.stderr
    torch.set_num_threads(o.threads)
    x = states(o)
    batches = itertools.cycle(x[: len(x) // o.rows * o.rows].split(o.rows))
    with contextlib.redirect_stdout(sys.stderr):
        step = MAKERS[o.worker](o, x[: 2 * o.rows])
        for _ in range(o.trained):
            step(next(batches))
    clock = {"processor": time.process_time, "wall": time.perf_counter}[o.clock]
    print("ready", file=answers, flush=True)
    for _ in sys.stdin:
        rows = next(batches)
        started = clock()
        step(rows)
        spent = 1000 * (clock() - started)
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        print(json.dumps({"ms": spent, "peak_mib": peak, **versions(o.worker)}), file=answers, flush=True)


def versions(name: str) -> dict[str, str]:
    if name in PEERS:
        return {"version": metadata.version(name), "torch": torch.__version__}
    found = {"version": "", "torch": torch.__version__}
    if name.startswith("overtone"):
        from overtone.dictionaries.kernels.dispatch import kernels_for

        found = {**found, "version": metadata.version("overtone"), "kernels": kernels_for("cpu").name}
    return found


# ---------------------------------------------------------------------------------------------------------- the parent
class Worker:
    """One library in a process of its own, which says that it is ready and answers each line with one of JSON."""

    def __init__(self, name: str, command: list[str], environment: dict[str, str], verbose: bool) -> None:
        self.name = name
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=None if verbose else subprocess.DEVNULL,
            text=True, env={**os.environ, **environment},
        )  # fmt: skip
        self.found: list[dict] = []
        assert self.process.stdout is not None
        self.alive = self.process.stdout.readline().strip() == "ready"

    def step(self, counts: bool) -> None:
        assert self.process.stdin is not None and self.process.stdout is not None
        self.process.stdin.write("\n")
        self.process.stdin.flush()
        line = self.process.stdout.readline()
        self.alive = bool(line)
        if line and counts:
            self.found.append(json.loads(line))

    def close(self) -> None:
        self.process.kill()
        self.process.wait()


def take_turns(workers: list[Worker], rounds: int, steps: int) -> None:
    """Two steps of each that do not count, then so many turns of so many steps of each; all are ended then."""
    turns = [[False, False], *[[steps == 1, *[True] * (steps - 1)]] * rounds]
    try:
        for turn in turns:
            for worker in workers:
                for counts in turn:
                    if worker.alive:
                        worker.step(counts)
    finally:
        for worker in workers:
            worker.close()


def worker_for(name: str, o: argparse.Namespace, method: str, sparse: bool) -> Worker:
    keys = ("rows", "width", "latents", "active", "threads", "clock", "trained", "states")
    options = [f"--{key}={getattr(o, key)}" for key in keys]
    environment = {"OMP_NUM_THREADS": str(o.threads), "MKL_NUM_THREADS": str(o.threads)}
    environment["GOMP_SPINCOUNT"] = os.environ.get("GOMP_SPINCOUNT", "50000")  # for all, as the command line sets it
    if name == "overtone-torch":
        environment["OVERTONE_KERNELS"] = "torch"
    command = [o.pythons[name], __file__, "--worker", name, "--method", method, *options, *["--sparse"][: int(sparse)]]
    return Worker(name, command, environment, o.verbose)


def compare(o: argparse.Namespace, method: str, sparse: bool) -> dict[str, dict]:
    names = [name for name in (*OURS, *PEERS) if name in o.pythons]
    names = [name for name in names if name != "overcomplete" or not (sparse or method == "gated")]
    names = [name for name in names if name != "eai-sparsify" or method in ("top_k", "g_sae")]
    theirs = "top_k" if method == "g_sae" else method
    workers = [worker_for(name, o, theirs if name in PEERS else method, sparse) for name in names]
    take_turns(workers, o.rounds, o.steps)
    return summary([w for w in workers if w.alive], [w.name for w in workers if not w.alive])


def summary(workers: list[Worker], failed: list[str]) -> dict[str, dict]:
    found: dict[str, dict] = {
        w.name: {**w.found[-1], "ms": statistics.median(f["ms"] for f in w.found)} for w in workers
    }
    for facts in found.values():
        if "overtone" in found:
            facts["times_overtone"] = facts["ms"] / found["overtone"]["ms"]
        if "overtone-torch" in found:
            facts["times_overtone_torch"] = facts["ms"] / found["overtone-torch"]["ms"]
    return found | {name: {"failed": True} for name in failed}


def positive(text: str) -> int:
    if (number := int(text)) < 1:
        raise argparse.ArgumentTypeError("at least 1")
    return number


def width_of(o: argparse.Namespace, parser: argparse.ArgumentParser) -> int:
    from safetensors import safe_open

    with safe_open(o.states, "pt") as file:
        shapes = [tuple(part.get_shape()) for part in map(file.get_slice, file.keys())]
    if len(shapes) != 1 or len(shapes[0]) != 2 or shapes[0][0] < 2 * o.rows:
        parser.error(f"--states: one array of (rows, width), 2 x --rows of them at least; {o.states} holds {shapes}.")
    return shapes[0][1]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    sizes = (("rows", 4096), ("width", 512), ("latents", 8192), ("active", 32), ("threads", 1))
    for name, default in sizes:
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--rounds", type=positive, default=4)
    parser.add_argument("--steps", type=positive, default=3, help="of a turn")
    parser.add_argument("--trained", type=int, default=0, metavar="N", help="steps of each before those that count")
    parser.add_argument("--states", default="", metavar="FILE", help="rows in a .safetensors file; sets --width")
    parser.add_argument("--clock", choices=("processor", "wall"), default="processor")
    parser.add_argument("--python", action="append", default=[], metavar="NAME=PATH", help="a peer and its Python")
    parser.add_argument("--methods", default=",".join(METHODS))
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--verbose", action="store_true", help="let the workers write to standard error")
    for hidden in ("--worker", "--method"):
        parser.add_argument(hidden, help=argparse.SUPPRESS)
    parser.add_argument("--sparse", action="store_true", help=argparse.SUPPRESS)
    o = parser.parse_args()
    if o.worker:
        work(o)
        return
    if unknown := set(o.methods.split(",")) - set(METHODS):
        parser.error(f"--methods: no {', '.join(sorted(unknown))}; there are {', '.join(METHODS)}.")
    if o.states:
        o.width = width_of(o, parser)
    o.pythons = {name: sys.executable for name in OURS} | dict(item.split("=", 1) for item in o.python)
    found = {}
    for method in o.methods.split(","):
        found[method] = compare(o, method, sparse=False)
        if "top_k" not in method and method != "g_sae":
            found[f"{method}, sparse"] = compare(o, method, sparse=True)
        if not o.json:
            print(f"{method}", *(f"  {key}: {value}" for key, value in found.items() if method in key), sep="\n")
    if o.json:
        settings = {key: value for key, value in vars(o).items() if key not in ("json", "worker", "method", "sparse")}
        print(json.dumps({"found": found, "settings": settings}, indent=1))


if __name__ == "__main__":
    main()
