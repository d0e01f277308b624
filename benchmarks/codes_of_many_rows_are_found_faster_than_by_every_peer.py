"""Claim: encoding many rows takes less time than with any other library, and less than a plain product and selection.

Codes of the same rows (width 512, 8192 latents, 4096 rows by default) with random weights, no gradients:
  top_k      the 32 best of each row
  threshold  what exceeds one threshold, which leaves about 32 per row
  overtone, overtone-torch, overtone-plain   encode() with the fastest kernels, without a compiler, and block by block
  sae-lens                                   TopKSAE.encode, JumpReLUSAE.encode
  eai-sparsify                               SparseCoder.encode (top_k only)
  dictionary-learning                        AutoEncoderTopK.encode, BatchTopKSAE.encode with its threshold
  overcomplete                               TopKSAE.encode (top_k only)
  product                                    the encoder's product alone, in torch

Each library runs in a process of its own, in the Python that `--python NAME=PATH` names (one per peer:
`python -m venv X && X/bin/pip install torch==2.13.0 sae-lens`); peers without a Python are left out. The processes take
turns of some times each, of which the first does not count, round after round. Reported: milliseconds of processor time
(median), ratios to overtone, active latents per row, versions.

    python benchmarks/codes_of_many_rows_are_found_faster_than_by_every_peer.py [--python sae-lens=/tmp/x/bin/python]
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import statistics
import sys
import time
from collections.abc import Callable
from importlib import metadata

import torch
from a_training_step_is_faster_than_every_peers import PEERS, Worker, positive, take_turns

KINDS = ("top_k", "threshold")
OURS = {"overtone": "auto", "overtone-torch": "torch", "overtone-plain": "plain", "product": "auto"}
Encode = Callable[[torch.Tensor], object]


# --------------------------------------------------------------------------------------------------------- the workers
def level(o: argparse.Namespace, u: torch.Tensor) -> float:
    """A threshold that leaves about so many pre-activations per row."""
    return float(u.detach().flatten()[::7].quantile(1 - o.active / o.latents))


def overtone(o: argparse.Namespace, x: torch.Tensor) -> Encode:
    from overtone.core.catalogue import lookup

    name = {"top_k": "top_k", "threshold": "batch_top_k"}[o.kind]
    preset = lookup("dictionaries", name).thing.example(n_latents=o.latents, k=o.active)
    dictionary = preset.build(o.width, torch.Generator().manual_seed(0)).eval().requires_grad_(False)
    if o.kind == "threshold":
        weight, bias = dictionary.encoder.affine(dictionary.decoder)
        u = torch.nn.functional.linear(dictionary.normaliser(x[:512]) - dictionary.centre(), weight, bias)
        dictionary.selection.theta.fill_(level(o, u))
    return dictionary.encode


def product(o: argparse.Namespace, x: torch.Tensor) -> Encode:
    weight = torch.randn(o.latents, o.width)
    return lambda rows: rows @ weight.T


def sae_lens(o: argparse.Namespace, x: torch.Tensor) -> Encode:
    from sae_lens.saes.jumprelu_sae import JumpReLUSAE, JumpReLUSAEConfig
    from sae_lens.saes.topk_sae import TopKSAE, TopKSAEConfig

    size = {"d_in": o.width, "d_sae": o.latents}
    sae = TopKSAE(TopKSAEConfig(k=o.active, **size)) if o.kind == "top_k" else JumpReLUSAE(JumpReLUSAEConfig(**size))
    torch.nn.init.normal_(sae.W_enc.data)
    if o.kind == "threshold":
        sae.threshold.data.fill_(level(o, x[:512] @ sae.W_enc))
    return sae.encode


def eai_sparsify(o: argparse.Namespace, x: torch.Tensor) -> Encode:
    os.environ["SPARSIFY_DISABLE_TRITON"] = "1"
    from sparsify import SparseCoder, SparseCoderConfig

    assert o.kind == "top_k"
    return SparseCoder(o.width, SparseCoderConfig(num_latents=o.latents, k=o.active), dtype=torch.float32).encode


def dictionary_learning(o: argparse.Namespace, x: torch.Tensor) -> Encode:
    from dictionary_learning.trainers.batch_top_k import BatchTopKSAE
    from dictionary_learning.trainers.top_k import AutoEncoderTopK

    if o.kind == "top_k":
        return AutoEncoderTopK(o.width, o.latents, o.active).encode
    sae = BatchTopKSAE(o.width, o.latents, o.active)
    sae.threshold.fill_(level(o, sae.encoder(x[:512] - sae.b_dec)))
    return lambda rows: sae.encode(rows, use_threshold=True)


def overcomplete(o: argparse.Namespace, x: torch.Tensor) -> Encode:
    from overcomplete.sae import TopKSAE

    assert o.kind == "top_k"
    model = TopKSAE(o.width, o.latents, top_k=o.active).eval()
    return lambda rows: model.encode(rows)[1]


MAKERS = {
    "overtone": overtone, "overtone-torch": overtone, "overtone-plain": overtone, "product": product,
    "sae-lens": sae_lens, "eai-sparsify": eai_sparsify, "dictionary-learning": dictionary_learning,
    "overcomplete": overcomplete,
}  # fmt: skip


def active(codes: object) -> float | None:
    """Active latents per row, of what a library calls codes."""
    if isinstance(codes, torch.Tensor):
        dense = codes.to_dense() if codes.layout != torch.strided else codes
        return float((dense != 0).sum(1).float().mean())
    return float(codes.counts().float().mean()) if hasattr(codes, "counts") else None  # pyright: ignore


def work(o: argparse.Namespace) -> None:
    """Prepare, then for each line on standard input encode the rows and say how long it took."""
    answers, sys.stdout = sys.stdout, sys.stderr
    torch.set_num_threads(o.threads)
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(o.rows, o.width, generator=generator) @ torch.randn(o.width, o.width, generator=generator)
    x /= o.width**0.5
    with contextlib.redirect_stdout(sys.stderr), torch.no_grad():
        encode = MAKERS[o.worker](o, x)
        facts = {"active": active(encode(x)), "version": metadata.version(o.worker) if o.worker in PEERS else ""}
    print("ready", file=answers, flush=True)
    for _ in sys.stdin:
        started = time.process_time()
        with torch.no_grad():
            encode(x)
        print(json.dumps({"ms": 1000 * (time.process_time() - started), **facts}), file=answers, flush=True)


# ---------------------------------------------------------------------------------------------------------- the parent
def worker_for(name: str, o: argparse.Namespace, kind: str) -> Worker:
    options = [f"--{key}={getattr(o, key)}" for key in ("rows", "width", "latents", "active", "threads")]
    environment = {"OMP_NUM_THREADS": str(o.threads), "MKL_NUM_THREADS": str(o.threads)}
    environment["OVERTONE_KERNELS"] = OURS.get(name, "auto")
    command = [o.pythons[name], __file__, "--worker", name, "--kind", kind, *options]
    return Worker(name, command, environment, o.verbose)


def compare(o: argparse.Namespace, kind: str) -> dict[str, dict]:
    names = [name for name in (*OURS, *PEERS) if name in o.pythons]
    if kind == "threshold":
        names = [name for name in names if name not in ("eai-sparsify", "overcomplete")]
    workers = [worker_for(name, o, kind) for name in names]
    take_turns(workers, o.rounds, o.times)
    found = {w.name: {**w.found[-1], "ms": statistics.median(f["ms"] for f in w.found)} for w in workers if w.alive}
    for facts in found.values():
        facts["times_overtone"] = facts["ms"] / found["overtone"]["ms"]
    return found | {w.name: {"failed": True} for w in workers if not w.alive}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    sizes = (("rows", 4096), ("width", 512), ("latents", 8192), ("active", 32), ("threads", 1))
    for name, default in sizes:
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--rounds", type=positive, default=4)
    parser.add_argument("--times", type=positive, default=3, help="of a turn; the first does not count")
    parser.add_argument("--python", action="append", default=[], metavar="NAME=PATH", help="a peer and its Python")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--verbose", action="store_true", help="let the workers write to standard error")
    for hidden in ("--worker", "--kind"):
        parser.add_argument(hidden, help=argparse.SUPPRESS)
    o = parser.parse_args()
    if o.worker:
        work(o)
        return
    o.pythons = dict.fromkeys(OURS, sys.executable) | dict(item.split("=", 1) for item in o.python)
    found = {kind: compare(o, kind) for kind in KINDS}
    if o.json:
        settings = {key: value for key, value in vars(o).items() if key not in ("json", "worker", "kind")}
        print(json.dumps({"found": found, "settings": settings}, indent=1))
        return
    for kind, by_name in found.items():
        print(kind, *(f"  {name}: {facts}" for name, facts in by_name.items()), sep="\n")


if __name__ == "__main__":
    main()
