"""What the kernels can work on."""

import torch
from torch import Tensor


def served(*tensors: Tensor) -> bool:
    """Whether all are contiguous float32 tensors on one device."""
    device = tensors[0].device
    return all(t.dtype == torch.float32 and t.device == device and t.is_contiguous() for t in tensors)
