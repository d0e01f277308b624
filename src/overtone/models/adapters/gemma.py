"""Gemma 2 and 3: norms before and after both halves; what is added to the stream is what the norm after returns."""

from typing import Any

from torch import nn

from overtone.core.catalogue import enrol
from overtone.models.adapter import Adapter, first_path


@enrol("adapters", "gemma", model_types=("gemma2", "gemma3", "gemma3_text"))
def gemma(model: nn.Module) -> Adapter:
    """Gemma 2 and Gemma 3 (the text part)."""
    config: Any = model.config
    return Adapter(
        layers=first_path(model, "model.language_model.layers", "language_model.layers", "model.layers", "layers"),
        attention="self_attn",
        mlp="mlp",
        final_norm=first_path(model, "model.language_model.norm", "language_model.norm", "model.norm", "norm"),
        head=first_path(model, "lm_head"),
        attn_out="post_attention_layernorm",
        mlp_out="post_feedforward_layernorm",
        attn_heads="self_attn.o_proj",
        mlp_neurons="mlp.down_proj",
        softcap=getattr(config.get_text_config(), "final_logit_softcapping", None),
    )
