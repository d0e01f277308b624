"""What nominates, and when that does not serve: int8 rests for a while where its bounds tell too little."""

from dataclasses import dataclass

NOMINEES = ("single", "bf16", "int8")  # kinds of numbers, the fastest last; places are numbers of the C library


@dataclass
class Rest:
    """For how many selections the fastest kind rests, now and after the next disappointment."""

    now: int = 0
    after: int = 16

    def due(self) -> bool:
        """Whether this selection is one of those."""
        self.now -= 1
        return self.now >= 0

    def weigh(self, too_many: bool) -> None:
        """Rest, twice as long as the last time, if there was too much to score; else forget that."""
        self.now, self.after = (self.after, min(1024, 2 * self.after)) if too_many else (0, 16)
