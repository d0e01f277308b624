"""What the compiled kernels can work on."""

import torch
from torch import Tensor


def served(*tensors: Tensor) -> bool:
    """Whether all are contiguous float32 tensors on a CPU."""
    return all(t.dtype == torch.float32 and t.device.type == "cpu" and t.is_contiguous() for t in tensors)
