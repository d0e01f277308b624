"""Claim: one epoch over activations takes the memory of a window and a shuffle buffer, however many rows there are.

A model of GPT-2 small's width (one slim block, so that reading is fast) is read at every token in five ways, each in a
process of its own, whose peak resident memory the operating system reports:
  model     the model in memory and forward passes of full size: what all the others include
  stream    one shuffled epoch of `ActivationStream`, rows thrown away after use
  collect   `collect`: the same rows written to disk, shard by shard
  store     one shuffled epoch of the finished `ActivationStore`
  memory    `all()`: every row in memory, what is stored when nothing bounds it
Reported is the peak above `model`, beside the bound that `estimate()` announces before it starts. The claim holds if
stream, collect and store stay below half of `memory`, and stream below its bound plus 64 MiB for allocator and code.

    python benchmarks/streaming_needs_less_memory_than_storing.py [--tokens 120000] [--json]
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
from pathlib import Path
from random import Random

WAYS = ("model", "stream", "collect", "store", "memory")
MIB = 1 << 20
LONGEST = 512
TOKENS_PER_PASS = 2048


def make_stream(n_tokens: int, buffer_rows: int):
    """The stream that every way reads: texts of 64 to 512 tokens on a random model."""
    import torch
    from transformers import GPT2Config, GPT2LMHeadModel

    from overtone.activations.positions import AllTokens
    from overtone.activations.stream import ActivationStream
    from overtone.core.sites import Site
    from overtone.data.traces import ReasoningTrace
    from overtone.models.hooked import HookedModel

    torch.set_num_threads(1)
    torch.manual_seed(0)
    config = GPT2Config(n_layer=1, n_inner=768, vocab_size=1000, n_positions=LONGEST, bos_token_id=0, eos_token_id=0)
    model = HookedModel.wrap(GPT2LMHeadModel(config).eval(), name="slim")
    rng, traces, left = Random(0), [], n_tokens
    while left > 0:
        length = min(rng.randint(64, LONGEST), left)
        ids = tuple(rng.randrange(1000) for _ in range(length))
        traces.append(ReasoningTrace(ids, (), len(traces), str(len(traces))))
        left -= length
    return ActivationStream(
        model, traces, Site("residual", 0), AllTokens(), quiet=True, tokens_per_pass=TOKENS_PER_PASS,
        buffer_rows=buffer_rows,
    )  # fmt: skip


def child(way: str, args: argparse.Namespace) -> None:
    """Do one way's work and print its peak resident memory in bytes and the stream's estimate."""
    import pyarrow.parquet  # noqa: F401 - what the store needs is loaded in every process, so that it does not count
    import torch

    from overtone.activations.store import collect

    stream = make_stream(args.tokens, args.buffer_rows)
    for length in (64, LONGEST):
        stream.model.read(torch.zeros(TOKENS_PER_PASS // length, length, dtype=torch.int64), None, stream.sites)
    source = stream
    if way in ("collect", "store"):
        source = collect(args.folder, stream, shard_bytes=args.shard_mib * MIB, quiet=True)
    if way in ("stream", "store"):
        n = sum(len(batch) for batch in source.batches(1024, seed=0))
        assert n == stream.n_rows
    if way == "memory":
        assert len(stream.all()) == stream.n_rows
    known = stream.estimate()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024  # Linux reports KiB
    print(json.dumps({"peak": peak, "bound": known.bytes_working, "rows_bytes": known.bytes_all}))


def measure(args: argparse.Namespace) -> dict:
    with tempfile.TemporaryDirectory() as folder:
        found = {}
        for way in WAYS:  # collect fills the folder, so that store finds it finished and only reads
            command = [sys.executable, __file__, "--way", way, "--folder", folder, "--tokens", str(args.tokens)]
            command += ["--buffer-rows", str(args.buffer_rows), "--shard-mib", str(args.shard_mib)]
            done = subprocess.run(command, capture_output=True, text=True, check=True)
            found[way] = json.loads(done.stdout)
        size = sum(p.stat().st_size for p in Path(folder).rglob("*.safetensors"))
    base = found["model"]["peak"]
    above = {way: round((found[way]["peak"] - base) / MIB) for way in WAYS[1:]}
    bound = round(found["stream"]["bound"] / MIB)
    bounded = max(above["stream"], above["collect"], above["store"])
    return {
        "benchmark": "streaming_needs_less_memory_than_storing", "tokens": args.tokens, "width": 768,
        "rows_mib": round(found["stream"]["rows_bytes"] / MIB), "on_disk_mib": round(size / MIB),
        "buffer_rows": args.buffer_rows, "shard_mib": args.shard_mib, "model_mib": round(base / MIB),
        "peak_above_model_mib": above, "announced_mib": bound,
        "holds": 2 * bounded < above["memory"] and above["stream"] < bound + 64,
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tokens", type=int, default=120_000)
    parser.add_argument("--buffer-rows", type=int, default=8192)
    parser.add_argument("--shard-mib", type=int, default=32)
    parser.add_argument("--json", action="store_true", help="one JSON line instead of a table")
    parser.add_argument("--way", choices=WAYS, help=argparse.SUPPRESS)
    parser.add_argument("--folder", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.way:
        child(args.way, args)
        return
    found = measure(args)
    if args.json:
        print(json.dumps(found))
        return
    print(f"{found['tokens']} rows of width 768 are {found['rows_mib']} MiB; announced: {found['announced_mib']} MiB")
    for way, peak in found["peak_above_model_mib"].items():
        print(f"{way:8}{peak:>6} MiB above the model")


if __name__ == "__main__":
    main()
