"""A short name for architecture and weights, by which directions and stores recognise their model."""

import hashlib
import json
from typing import Any

import torch
from torch import nn

VOLATILE = {
    "_name_or_path", "transformers_version", "architectures", "dtype", "torch_dtype", "use_cache", "output_attentions",
    "output_hidden_states", "return_dict", "_attn_implementation_autoset",
}  # fmt: skip
PER_TENSOR = 64  # values sampled from each parameter: cheap on any size, and no fine-tuning leaves all of them alone


def fingerprint(model: nn.Module) -> str:
    """16 hexadecimal digits: the same after save and load and in every dtype, another for other weights.

    Hashes the config without paths and versions, and evenly spaced values of every parameter, rounded to bfloat16.
    """
    digest = hashlib.sha256(json.dumps(_architecture(model), sort_keys=True, default=str).encode())
    for name, parameter in sorted(model.named_parameters()):
        flat = parameter.detach().reshape(-1)
        picks = torch.linspace(0, max(flat.numel() - 1, 0), PER_TENSOR, dtype=torch.float64).long().unique()
        values = flat[picks.to(flat.device)].cpu().to(torch.bfloat16) if flat.numel() else flat.cpu().to(torch.bfloat16)
        digest.update(f"{name}{tuple(parameter.shape)}".encode())
        digest.update(values.view(torch.int16).numpy().tobytes())
    return digest.hexdigest()[:16]


def _architecture(model: nn.Module) -> dict[str, Any]:
    config = getattr(model, "config", None)
    if config is None or not hasattr(config, "to_dict"):
        return {"class": type(model).__name__}
    return {key: value for key, value in config.to_dict().items() if key not in VOLATILE}
