"""BERT and its kin: encoders that norm the stream after each half (post-norm).

The block's output is normed, so residual.L is not residual.L-1 + attn_out + mlp_out; residual_mid is the normed stream
that the MLP reads and adds to.
"""

from typing import Any

from torch import nn

from overtone.core.catalogue import enrol
from overtone.models.adapter import Adapter, first_path


@enrol("adapters", "bert", model_types=("bert", "roberta", "xlm-roberta", "camembert"))
def bert(model: nn.Module) -> Adapter:
    """BERT, RoBERTa, XLM-R and CamemBERT."""
    config: Any = model.config
    prefix = getattr(model, "base_model_prefix", "")
    return Adapter(
        layers=first_path(model, f"{prefix}.encoder.layer", "encoder.layer"),
        attention="attention.self",
        mlp="output",
        head=first_path(model, "cls.predictions", "cls", "lm_head"),
        attn_out="attention.output.dropout",
        mlp_out="output.dropout",
        attn_heads="attention.output.dense",
        mlp_in="intermediate",
        mlp_neurons="output.dense",
        residual_mid="attention.output",
        is_causal=bool(config.is_decoder),
        # RoBERTa numbers positions from padding_idx + 1
        position_offset=0 if config.model_type == "bert" else config.pad_token_id + 1,
    )
