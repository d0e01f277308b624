"""Strengths with units, so that doses of different directions and layers can be compared.

| unit | one unit is | needs |
|---|---|---|
| absolute | 1 in the state's own units | nothing |
| raw | the norm of what the finder returned (SEAL's alpha) | raw_norm |
| projection | the mean abs(v.h) over the reference rows | typical_projection |
| norm | the mean state norm over the reference rows (rho elsewhere) | mean_norm |
| nats | 1 nat of KL to the unsteered model at the steered positions | calibrate.strength_for_kl, which returns an
absolute one |
"""

import math
from dataclasses import dataclass

from overtone.core.errors import SettingError, nearest
from overtone.directions.direction import Direction

_SIZE = {"raw": "raw_norm", "projection": "typical_projection", "norm": "mean_norm"}
UNITS = ("absolute", *_SIZE, "nats")


@dataclass(frozen=True)
class Strength:
    """A signed number with a unit (see the module). Raises SettingError for an unknown unit or a number that is not
    finite.
    """

    value: float
    unit: str = "absolute"

    def __post_init__(self) -> None:
        if self.unit not in UNITS:
            raise SettingError(
                f"{self.unit!r} is not a unit of strength.{nearest(self.unit, UNITS)} Use {', '.join(UNITS)}."
            )
        if not math.isfinite(self.value):
            raise SettingError(f"strength {self.value} is not finite. Give a number; 0 means no edit.")

    def absolute(self, direction: Direction) -> float:
        """The strength in the state's own units at the place of a direction; 0 stays exactly 0.

        Raises SettingError if the direction lacks what the unit is measured in, or the unit is nats.
        """
        if self.value == 0 or self.unit == "absolute":
            return float(self.value)
        if self.unit == "nats":
            raise SettingError(
                f"{self.value} nats is an effect, not a size. strength_for_kl(model, traces, make, {abs(self.value)}) "
                "measures which absolute strength has it; use what it returns."
            )
        size = getattr(direction, _SIZE[self.unit])
        if not math.isfinite(size):
            raise SettingError(
                f"{direction} has no {_SIZE[self.unit]}, so a strength in {self.unit!r} has no size. "
                "Give it reference rows with direction.measured(rows), or use an absolute strength."
            )
        return float(self.value * size)

    def __str__(self) -> str:
        return f"{self.value:g}" if self.unit == "absolute" else f"{self.value:g} {self.unit}"


def as_strength(value: Strength | float) -> Strength:
    """A bare number is an absolute strength."""
    return value if isinstance(value, Strength) else Strength(float(value))
