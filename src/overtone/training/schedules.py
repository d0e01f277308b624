"""Schedules over tokens: the same course whatever the batch size or the number of workers."""

from dataclasses import dataclass

from overtone.core.settings import Settings, require


@dataclass(frozen=True)
class Schedule(Settings):
    """Learning rate as a share of its peak: linear from 0 over the first `warm_up` of the tokens, constant, then linear
    to 0 over the last `decay` of them. Both are shares of the whole training in [0, 1], together at most 1."""

    warm_up: float = 0.05
    decay: float = 0.2

    def __post_init__(self) -> None:
        require(
            min(self.warm_up, self.decay) >= 0 and self.warm_up + self.decay <= 1,
            f"warm_up={self.warm_up} and decay={self.decay} are shares of the training: at least 0, "
            "together at most 1.",
        )

    def factor(self, progress: float) -> float:
        """Share of the peak learning rate, in [0, 1], where `progress` in [0, 1] is the share of the tokens seen."""
        rising = progress / self.warm_up if self.warm_up else 1.0
        falling = (1.0 - progress) / self.decay if self.decay else 1.0
        return max(0.0, min(1.0, rising, falling))
