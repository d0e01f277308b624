"""The miniature of every architecture: its real class, random weights, tiny sizes; one line each, no download."""

from dataclasses import dataclass, field
from functools import cache
from typing import Any

import torch
import transformers

from overtone.models.hooked import HookedModel

VOCABULARY, WIDTH, LAYERS, NEURONS = 97, 32, 3, 48
COMMON = {
    "vocab_size": VOCABULARY, "hidden_size": WIDTH, "num_hidden_layers": LAYERS, "num_attention_heads": 4,
    "max_position_embeddings": 64, "initializer_range": 0.2, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2,
}  # fmt: skip
GATED = COMMON | {"intermediate_size": NEURONS, "num_key_value_heads": 2}
GEMMA = GATED | {"head_dim": 8, "layer_types": ["full_attention", "sliding_attention", "full_attention"]}
BERT = COMMON | {"intermediate_size": NEURONS}
GPT2 = {"n_embd": WIDTH, "n_layer": LAYERS, "n_head": 4, "n_inner": NEURONS, "n_positions": 64}
DISTIL = {"dim": WIDTH, "n_layers": LAYERS, "n_heads": 4, "hidden_dim": NEURONS}


@dataclass(frozen=True)
class Miniature:
    """A class name of transformers, the config's name and sizes, and which laws its blocks obey."""

    model: str
    config: str
    sizes: dict[str, Any] = field(default_factory=dict)
    post_norm: bool = False  # the stream itself is normed after each half
    norm_after: bool = False  # a norm stands between projection and stream
    parallel: bool = False


TABLE = {
    "llama": Miniature("LlamaForCausalLM", "LlamaConfig", GATED),
    "mistral": Miniature("MistralForCausalLM", "MistralConfig", GATED | {"sliding_window": 4}),
    "qwen2": Miniature("Qwen2ForCausalLM", "Qwen2Config", GATED),
    "qwen3": Miniature("Qwen3ForCausalLM", "Qwen3Config", GATED | {"head_dim": 16}),
    "phi3": Miniature("Phi3ForCausalLM", "Phi3Config", GATED),
    "gemma": Miniature("GemmaForCausalLM", "GemmaConfig", GATED | {"head_dim": 8}),
    "gemma2": Miniature("Gemma2ForCausalLM", "Gemma2Config", GEMMA | {"sliding_window": 4}, norm_after=True),
    "gemma3": Miniature("Gemma3ForCausalLM", "Gemma3TextConfig", GEMMA | {"sliding_window": 4}, norm_after=True),
    "gpt2": Miniature("GPT2LMHeadModel", "GPT2Config", COMMON | GPT2),
    "gpt_neox": Miniature("GPTNeoXForCausalLM", "GPTNeoXConfig", BERT, parallel=True),
    "gpt_neox sequential": Miniature("GPTNeoXForCausalLM", "GPTNeoXConfig", BERT | {"use_parallel_residual": False}),
    "opt": Miniature("OPTForCausalLM", "OPTConfig", COMMON | {"ffn_dim": NEURONS, "word_embed_proj_dim": WIDTH}),
    "opt 350m": Miniature(
        "OPTForCausalLM", "OPTConfig",
        COMMON | {"ffn_dim": NEURONS, "word_embed_proj_dim": 16, "do_layer_norm_before": False}, post_norm=True,
    ),
    "phi": Miniature("PhiForCausalLM", "PhiConfig", BERT, parallel=True),
    "bert": Miniature("BertForMaskedLM", "BertConfig", BERT, post_norm=True),
    "roberta": Miniature("RobertaForMaskedLM", "RobertaConfig", BERT | {"type_vocab_size": 1}, post_norm=True),
    "distilbert": Miniature("DistilBertForMaskedLM", "DistilBertConfig", COMMON | DISTIL, post_norm=True),
}  # fmt: skip
ENCODERS = ("bert", "roberta", "distilbert")
DECODERS = tuple(name for name in TABLE if name not in ENCODERS)


def build(name: str, seed: int = 0) -> torch.nn.Module:
    """The miniature of an architecture, in evaluation mode; every parameter random, biases and norms too."""
    kind = TABLE[name]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = getattr(transformers, kind.model)(getattr(transformers, kind.config)(**kind.sizes))
        for parameter in model.parameters():
            if parameter.ndim == 1:
                parameter.data += 0.1 * torch.randn_like(parameter)
    return model.eval()


@cache
def miniature(name: str) -> HookedModel:
    """The miniature of an architecture, hooked; shared between tests, which leave it as it was."""
    return HookedModel.wrap(build(name))


def padded(rows: list[list[int]], side: str) -> tuple[torch.Tensor, torch.Tensor]:
    """Token ids (batch, seq) and which of them are real, padded with 0 on one side."""
    longest = max(map(len, rows))
    tokens = torch.zeros(len(rows), longest, dtype=torch.int64)
    real = torch.zeros(len(rows), longest, dtype=torch.bool)
    for i, row in enumerate(rows):
        columns = slice(longest - len(row), None) if side == "left" else slice(0, len(row))
        tokens[i, columns], real[i, columns] = torch.tensor(row), True
    return tokens, real


def some_rows(lengths: tuple[int, ...] = (9, 4, 7, 1), seed: int = 1) -> list[list[int]]:
    """Random token rows of several lengths; special tokens stay out."""
    generator = torch.Generator().manual_seed(seed)
    return [torch.randint(3, VOCABULARY, (n,), generator=generator).tolist() for n in lengths]
