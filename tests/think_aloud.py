"""Random-weight models that write traces with steps of several kinds, saved as anybody's model would be.

Random weights draw tokens almost at random. So the vocabulary is one in which random tokens make steps: letters from a
byte-level BPE trained here, a good share of entries that end a paragraph, and whole entries such as "let me check" and
"Alternatively", which SEAL's rule names. Nothing is put into the weights.
"""

import json
from pathlib import Path

import torch
import transformers
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from overtone.discover.settings import (
    CausalSettings,
    ConfidenceSettings,
    DictionarySettings,
    DiscoverSettings,
    SamplingSettings,
)

SPECIAL = ["<pad>", "<eos>"]
TAGS = ["<think>", "</think>"]
ENDS = [f"{mark}\n\n" for mark in (".", "!", "?", ":", ";", ")", "...", " =", "!!", ".)", "?!", ".\n")]
KINDS = ["Wait, ", "let me check", "make sure", "hold on", "Alternatively, ", "another way", "another method"]
TEMPLATE = "{{ messages[0]['content'] }}{{ '\\n\\n<think>\\n' if add_generation_prompt else '' }}"
SIZES = {
    "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 3, "num_attention_heads": 4,
    "num_key_value_heads": 2, "max_position_embeddings": 256, "initializer_range": 0.3, "tie_word_embeddings": False,
    "pad_token_id": 0, "bos_token_id": None, "eos_token_id": 1,
}  # fmt: skip


def train_tokenizer(*, think: bool, ends: tuple[str, ...] = tuple(ENDS)) -> transformers.PreTrainedTokenizerFast:
    """A byte-level BPE of about a hundred entries; think: with tags and a chat template that opens the section."""
    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    special = SPECIAL + TAGS if think else SPECIAL
    corpus = [f"What is {a} + {b}? The sum of {a} and {b}.\n\n" for a in range(10) for b in range(10)]
    backend.train_from_iterator(corpus, trainers.BpeTrainer(vocab_size=60, special_tokens=special, show_progress=False))
    tokenizer = transformers.PreTrainedTokenizerFast(tokenizer_object=backend, pad_token="<pad>", eos_token="<eos>")
    tokenizer.add_tokens([*ends, *KINDS])
    if think:
        tokenizer.chat_template = TEMPLATE
    return tokenizer


def save_model(folder: Path, family: str = "Qwen2", *, think: bool = False, **tokenizer: tuple[str, ...]) -> Path:
    """A model of a family with random weights, and its tokenizer, in the format of transformers; returns the folder."""
    words = train_tokenizer(think=think, **tokenizer)
    config = getattr(transformers, f"{family}Config")(**SIZES, vocab_size=len(words))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = getattr(transformers, f"{family}ForCausalLM")(config)
    model.save_pretrained(folder)
    words.save_pretrained(folder)
    return folder


def save_prompts(path: Path, n: int = 24) -> Path:
    """n different prompts with answers, as JSON Lines; returns the path."""
    rows = [{"problem": f"What is {i} + {i % 7}?", "answer": i + i % 7} for i in range(n)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def small_settings(model: Path | str, prompts: Path | str, **changes) -> DiscoverSettings:
    """Settings of a discovery of seconds."""
    parts = {
        "sampling": SamplingSettings(n_traces=96, max_new_tokens=48, batch_rows=400),
        "naming": DictionarySettings(preset="top_k", epochs=10),
        "boundary": DictionarySettings(preset="relu_l1", expansion=2.0, anchor="next", epochs=10),
        "causal": CausalSettings(n_problems=24, doses=(-0.5, 0.5), n_random=1),
        "confidence": ConfidenceSettings(iterations=5, n_random=5),
    }
    return DiscoverSettings(model=str(model), prompts=str(prompts), workers=1, **{**parts, **changes})
