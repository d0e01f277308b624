"""Twins: small models of one architecture that differ in their seed alone, trained on the texts of the bundled
reasoner.

What two trainings share is what the task demands, so twins are where similarity of models can be checked: layer l of
one should be matched with layer l of the other (Kornblith et al. 2019, arXiv 1905.00414).
"""

from __future__ import annotations

from collections.abc import Sequence
from random import Random
from typing import Any

import torch
from torch.nn.functional import cross_entropy

from overtone.activations.positions import AllTokens
from overtone.activations.stream import ActivationStream, padded
from overtone.core.batch import ActivationBatch
from overtone.core.seeds import derive
from overtone.core.sites import Site
from overtone.data.countdown.problems import split_problems
from overtone.data.countdown.tokens import written_traces
from overtone.data.traces import ReasoningTrace
from overtone.models.hooked import HookedModel

LONGEST = 150  # tokens of a text: short ones make an update cheap


def train_twin(
    seed: int, tokenizer: Any, *, updates: int = 300, batch: int = 8, width: int = 64, layers: int = 4, lr: float = 4e-3
) -> tuple[HookedModel, float]:
    """A small Llama trained on written traces, and its last loss per token in nats (mean over the last tenth).

    seed: decides the initial weights, and the texts and their order; tokenizer: the bundled reasoner's; updates of
    `batch` traces each; width and layers: size of the model. Leaves the global random state as it was.
    """
    model = _untrained(derive(seed, "twin"), len(tokenizer), width, layers)
    pool, vocabulary = split_problems(held_out=False), tokenizer.get_vocab()
    traces = written_traces(pool, updates * batch, vocabulary, Random(derive(seed, "texts")), longest=LONGEST)
    optimiser = torch.optim.AdamW(model.parameters(), lr=lr, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, lr, total_steps=updates, pct_start=0.1)
    losses = []
    for first in range(0, len(traces), batch):
        loss = _loss(model, [trace.tokens for trace in traces[first : first + batch]])
        optimiser.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        schedule.step()
        losses.append(loss.item())
    last = losses[-max(1, len(losses) // 10) :]
    return HookedModel.wrap(model.eval().requires_grad_(False), tokenizer, name=f"twin {seed}"), sum(last) / len(last)


def layer_states(model: HookedModel, traces: Sequence[ReasoningTrace]) -> ActivationBatch:
    """States after every block of a model, one row per token of the traces' responses."""
    sites = [Site("residual", layer) for layer in range(model.n_layers)]
    return ActivationStream(model, traces, sites, AllTokens(part="response"), quiet=True).all()


def _untrained(seed: int, vocabulary: int, width: int, layers: int) -> Any:
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        vocab_size=vocabulary, hidden_size=width, intermediate_size=3 * width, num_hidden_layers=layers,
        num_attention_heads=4, num_key_value_heads=4, max_position_embeddings=512, tie_word_embeddings=True,
        bos_token_id=1, eos_token_id=2, pad_token_id=0,
    )  # fmt: skip
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return LlamaForCausalLM(config).train()


def _loss(model: Any, rows: list[tuple[int, ...]]) -> torch.Tensor:
    tokens, real = padded(rows)
    logits = model(input_ids=tokens, attention_mask=real.long()).logits[:, :-1]
    return cross_entropy(logits[real[:, 1:]], tokens[:, 1:][real[:, 1:]])
