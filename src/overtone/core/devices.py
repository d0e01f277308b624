"""Where tensors are computed."""

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
