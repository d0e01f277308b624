"""Claim: a cached decoding step does not copy the keys and values of earlier ones, and an edit adds next to nothing.

A random model of the bundled reasoner's size (6 blocks, width 160) decodes many left-padded rows in three ways:
  library   the model called directly with the library's growing cache (each step copies all earlier keys and values)
  overtone  `HookedModel.forward`: buffers with room to grow
  edited    the same with an editor on the residual stream
The ways take turns step by step. Reported: milliseconds of processor time per step (median over the last quarter of the
steps; with one thread a busy machine hardly changes it) and the ratios to `library`. At each step `library` and
`overtone` must agree.

    python benchmarks/a_decoding_step_does_not_copy_what_was_decoded.py [--rows 256] [--steps 200] [--json]
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor

from overtone.core.sites import Site
from overtone.models.hooked import HookedModel

PROMPT = 40


def make_model() -> HookedModel:
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=335, hidden_size=160, intermediate_size=480, num_hidden_layers=6, num_attention_heads=5,
        num_key_value_heads=5, max_position_embeddings=1024, tie_word_embeddings=True,
    )  # fmt: skip
    return HookedModel.wrap(LlamaForCausalLM(config).eval(), name="reasoner-sized")


def ways(model: HookedModel) -> dict[str, Callable[[Tensor, Tensor], Tensor]]:
    """Name -> a step (tokens so far, which are real) -> logits of the last column; each keeps its own cache."""
    caches: dict[str, Any] = {}
    direction = 0.01 * torch.randn(160)

    def library(tokens: Tensor, real: Tensor) -> Tensor:
        new = slice(PROMPT + caches["steps"] - 1, None) if "library" in caches else slice(0, None)
        positions = (real.long().cumsum(1) - 1).clamp_min(0)[:, new]
        out = model.model(
            tokens[:, new], attention_mask=real.long(), position_ids=positions, logits_to_keep=1, use_cache=True,
            past_key_values=caches.get("library"),
        )  # fmt: skip
        caches["library"], caches["steps"] = out.past_key_values, caches.get("steps", 0) + 1
        return out.logits[:, -1]

    def ours(name: str, editors: dict) -> Callable[[Tensor, Tensor], Tensor]:
        def step(tokens: Tensor, real: Tensor) -> Tensor:
            with model.editing(editors) if editors else nullcontext():
                logits, caches[name] = model.forward(
                    tokens, real, cache=caches.get(name), prompt_columns=PROMPT, last_only=True
                )
            return logits[:, -1]

        return step

    editors = {Site("residual", 3): lambda states, call: states + direction}
    return {"library": library, "overtone": ours("overtone", {}), "edited": ours("edited", editors)}


@torch.no_grad()
def measure(args: argparse.Namespace) -> dict[str, float]:
    torch.set_num_threads(args.threads)
    steps = ways(make_model())
    tokens = torch.randint(335, (args.rows, PROMPT), generator=torch.Generator().manual_seed(0))
    real = torch.ones_like(tokens, dtype=torch.bool)
    real[::2, :5] = False
    taken: dict[str, list[float]] = {name: [] for name in steps}
    for _ in range(args.steps):
        found = {}
        for name, step in steps.items():
            started = time.process_time()
            found[name] = step(tokens, real)
            taken[name].append(1e3 * (time.process_time() - started))
        torch.testing.assert_close(found["overtone"], found["library"], rtol=1e-3, atol=1e-3)
        tokens = torch.cat([tokens, found["library"].argmax(-1, keepdim=True)], dim=1)
        real = torch.cat([real, torch.ones(args.rows, 1, dtype=torch.bool)], dim=1)
    medians = {name: statistics.median(times[-args.steps // 4 :]) for name, times in taken.items()}
    ratios = {f"{name}_of_library": medians[name] / medians["library"] for name in ("overtone", "edited")}
    return {name: round(value, 3) for name, value in {**medians, **ratios}.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, value in {"rows": 256, "steps": 200, "threads": 1}.items():
        parser.add_argument(f"--{name}", type=int, default=value)
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    found = measure(args)
    if args.json:
        print(json.dumps({"benchmark": "decoding step", "rows": args.rows, "steps": args.steps, **found}))
    else:
        print(f"{args.rows} rows, {args.steps} steps after a prompt of {PROMPT}; ms of processor time per late step:")
        print("\n".join(f"  {name:20s} {value:.3f}" for name, value in found.items()))


if __name__ == "__main__":
    main()
