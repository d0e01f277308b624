"""Where tensors are computed."""

import time
from collections.abc import Callable

from overtone.core.errors import SettingError


def usable(device: str) -> str:
    """The device, such as "cpu", "cuda" or "cuda:1". Raises SettingError where no number can be kept on it and read."""
    import torch

    try:
        torch.zeros((), device=device).item()
    except (RuntimeError, AssertionError) as error:
        reason = str(error).split("\n")[0].split(". ")[0].rstrip(".")  # torch goes on with all devices that it knows
        raise SettingError(f"device={device!r} cannot be used here: {reason}. Use cpu.") from None
    return device


def clock_of(device: str) -> Callable[[], float]:
    """What tells how many seconds work on a device takes: processor time on a CPU, in which other work does not count;
    the wall's elsewhere, since a processor does not work while it waits."""
    return time.process_time if device == "cpu" else time.perf_counter
