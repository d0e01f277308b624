"""Claim: harvesting one site costs the blocks up to that site, not the whole model.

A random model of GPT-2 small's size (12 blocks, width 768, 50,257 tokens) is read at one site in four ways:
  read      overtone's `HookedModel.read`: plain hooks, the pass stops at the site
  full      a plain forward pass of the whole model, nothing kept: the least that any library pays that runs to the end
  hidden    the same with `output_hidden_states=True`, the usual way to get states without hooks
  body      a forward pass without the vocabulary head
The four take turns on the same tokens, round by round, so that a busy machine slows all of them; a ratio is the median
over rounds of the ratios within a round. Before timing, `read` and `hidden` are compared: they must agree.

    python benchmarks/harvesting_stops_at_the_deepest_site.py [--layer 6] [--rounds 5] [--json]
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
from overtone.models.hooked import HookedModel


def make_model(device: str, dtype: str) -> HookedModel:
    from transformers import GPT2Config, GPT2LMHeadModel

    torch.manual_seed(0)
    model = GPT2LMHeadModel(GPT2Config()).eval()
    return HookedModel.wrap(model.to(device=device, dtype=getattr(torch, dtype)), name="gpt2-random")  # type: ignore


def ways(model: HookedModel, tokens: torch.Tensor, site: Site) -> dict[str, Callable[[], torch.Tensor]]:
    """Name -> a pass over the tokens that returns something of its result."""
    plain: Any = model.model
    options = {"use_cache": False}
    return {
        "read": lambda: model.read(tokens, None, [site])[site],
        "full": lambda: plain(tokens, **options).logits,
        "hidden": lambda: plain(tokens, output_hidden_states=True, **options).hidden_states[site.layer + 1],
        "body": lambda: plain.transformer(tokens, **options).last_hidden_state,
    }


def seconds(way: Callable[[], torch.Tensor], device: str) -> float:
    started = time.perf_counter()
    way()
    if device != "cpu":
        torch.accelerator.synchronize()
    return time.perf_counter() - started


@torch.no_grad()
def measure(args: argparse.Namespace) -> dict:
    torch.set_num_threads(args.threads)
    model, site = make_model(args.device, args.dtype), Site("residual", args.layer)
    draw = torch.Generator().manual_seed(0)
    tokens = torch.randint(model.vocab_size, (args.batch, args.length), generator=draw).to(args.device)
    passes = ways(model, tokens, site)
    assert torch.allclose(passes["read"](), passes["hidden"](), rtol=1e-4, atol=1e-4), "the states differ"
    for way in passes.values():  # a warm-up each
        seconds(way, args.device)
    rounds = [{name: seconds(way, args.device) for name, way in passes.items()} for _ in range(args.rounds)]
    n_tokens, others = tokens.numel(), [name for name in passes if name != "read"]
    speed = {name: round(n_tokens / statistics.median(r[name] for r in rounds)) for name in passes}
    ratios = {name: sorted(r[name] / r["read"] for r in rounds) for name in others}
    summary = {n: [round(x, 2) for x in (statistics.median(r), r[0], r[-1])] for n, r in ratios.items()}
    return {
        "benchmark": "harvesting_stops_at_the_deepest_site", "site": str(site), "layers": model.n_layers,
        "tokens_per_pass": n_tokens, "rounds": args.rounds, "device": args.device, "dtype": args.dtype,
        "threads": args.threads, "tokens_per_second": speed, "times_faster_than": summary,
        "holds": summary["full"][0] > 1.5 and summary["hidden"][0] > 1.5,
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    numbers = {"layer": 6, "rounds": 5, "batch": 4, "length": 128, "threads": 1}
    for name, value in numbers.items():
        parser.add_argument(f"--{name}", type=int, default=value)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--json", action="store_true", help="one JSON line instead of a table")
    args = parser.parse_args()
    found = measure(args)
    if args.json:
        print(json.dumps(found))
        return
    print(
        f"{found['site']} of {found['layers']} layers, {found['tokens_per_pass']} tokens per pass, {args.rounds} rounds"
    )
    for name, speed in found["tokens_per_second"].items():
        median, low, high = found["times_faster_than"].get(name, (1.0, 1.0, 1.0))
        print(f"{name:8}{speed:>8} tokens/s   read is {median:.2f} times as fast (rounds: {low:.2f} to {high:.2f})")


if __name__ == "__main__":
    main()
