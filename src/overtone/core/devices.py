"""Where tensors are computed."""

from overtone.core.errors import SettingError


def usable(device: str) -> str:
    """The device, such as "cpu", "cuda" or "cuda:1". Raises SettingError where no tensor can be made on it."""
    import torch

    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).split("\n")[0].rstrip(".")
        raise SettingError(f"device={device!r} cannot be used here: {reason}. Use cpu.") from None
    return device
