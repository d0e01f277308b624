"""A language model of eleven words and texts for it, as files: what commands read."""

import json

import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

WORDS = ["<pad>", "<unk>", "\n\n", "wait", "so", "three", "plus", "four", "is", "seven", "done"]
WIDTH = 16


def save_model(folder):
    """A folder with a random two-block Llama and its tokenizer."""
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(WORDS), hidden_size=WIDTH, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2,
        max_position_embeddings=64, pad_token_id=0, bos_token_id=None, eos_token_id=None,
    )  # fmt: skip
    LlamaForCausalLM(config).save_pretrained(folder)
    inner = Tokenizer(models.WordLevel({word: i for i, word in enumerate(WORDS)}, unk_token="<unk>"))
    inner.pre_tokenizer = pre_tokenizers.Split(" ", "removed")
    PreTrainedTokenizerFast(tokenizer_object=inner, pad_token="<pad>", unk_token="<unk>").save_pretrained(folder)
    return str(folder)


def save_texts(path):
    """Twelve problems with an answer of three steps each."""
    response = "wait three plus four \n\n so seven \n\n done"
    lines = [{"prompt": f"three plus four is seven {'so ' * i}\n\n", "response": response} for i in range(12)]
    path.write_text("\n".join(json.dumps(line) for line in lines))
    return str(path)
