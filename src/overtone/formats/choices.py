"""What some files leave open: settings that answer, so that nothing is guessed."""

from dataclasses import dataclass

from overtone.core.settings import Settings, require


@dataclass(frozen=True)
class Choices(Settings):
    """Answers to what some foreign files leave open. None: not answered, an error only where it matters."""

    apply_b_dec_to_input: bool | None = None
    """Is the decoder's constant subtracted before encoding?"""
    norm_scale: float | None = None
    """Factor that brings states into the units the file was trained in; 1 if it is folded into the weights already."""
    rescale_acts_by_decoder_norm: bool | None = None
    """Are latents ranked, and codes given, as value times the length of the decoder's row?"""
    unit_rows: bool | None = None
    """Give codes as for decoder rows of length 1 (true), or in the scale of the file (false)?"""

    def __post_init__(self) -> None:
        scale = self.norm_scale
        require(scale is None or 0 < scale < float("inf"), f"norm_scale={scale}: a factor is positive and finite.")


def spelled(name: str) -> str:
    """What an error calls a choice: the option of the command line, and its name in Python."""
    return f"--{name.replace('_', '-')} (in Python {name})"
