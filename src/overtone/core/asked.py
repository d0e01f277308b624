"""What a host asks a device without waiting for it at once."""

import torch
from torch import Tensor


class Asked:
    """A number that a device still computes, on its way to the host. Who has other work for the device in the meantime
    asks first and takes the answer later."""

    def __init__(self, number: Tensor) -> None:
        on_cuda = number.is_cuda
        self._number = number.detach().to("cpu", non_blocking=on_cuda)
        self._known = torch.cuda.Event() if on_cuda else None
        if self._known is not None:
            self._known.record(torch.cuda.current_stream(number.device))

    def answer(self) -> float:
        """The number; waits until it is there."""
        if self._known is not None:
            self._known.synchronize()
        return self._number.item()
