"""What a training step costs, counted instead of timed: dense products, large matrices, waits for the device."""

from typing import Any

import torch
from torch import Tensor
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry

aten = torch.ops.aten
ONEDNN = getattr(torch.ops.mkldnn, "_linear_pointwise", None)  # torch's own table of operations lacks these
INT8 = getattr(torch.ops.onednn, "qlinear_pointwise", None)
WAITS = (aten._local_scalar_dense, aten.nonzero, aten.is_nonzero, aten.equal)


class Counting(TorchDispatchMode):
    """Inside `with Counting(rows, latents, width) as cost:` every operation of torch is seen.

    cost.products: multiplications of dense products, in units of rows x latents x width, 0 or more; cost.matrices: the
    most tensors with at least rows x latents numbers that were alive at a time; cost.waits: operations after which an
    accelerator would have to be waited for. What kernels outside of torch do is not seen.
    """

    def __init__(self, rows: int, latents: int, width: int) -> None:
        super().__init__()
        self.large, self.unit = rows * latents, 2 * rows * latents * width
        self.products, self.matrices, self.waits = 0.0, 0, 0
        self._alive: dict[int, StorageWeakRef] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        """Count one operation."""
        out = func(*args, **(kwargs or {}))
        packet = func._overloadpacket
        if packet in flop_registry:
            self.products += flop_registry[packet](*args, **(kwargs or {}), out_val=out) / self.unit
        if packet is ONEDNN:
            self.products += 2 * args[0].numel() * args[1].shape[0] / self.unit
        if packet is INT8:
            self.products += 2 * args[0].numel() * args[4].numel() / self.unit  # states, steps of latents
        self.waits += packet in WAITS
        for tensor in tree_leaves(out):
            if isinstance(tensor, Tensor) and tensor.layout == torch.strided and tensor.numel() >= self.large:
                storage = tensor.untyped_storage()
                self._alive[storage._cdata] = StorageWeakRef(storage)
        self._alive = {key: ref for key, ref in self._alive.items() if not ref.expired()}
        self.matrices = max(self.matrices, len(self._alive))
        return out
