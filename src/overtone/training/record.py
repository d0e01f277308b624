"""The course of a training in numbers, and how it is shown while it runs."""

import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from overtone.core import progress


@dataclass(frozen=True)
class Record:
    """One line of a training's course, measured on the batch that was just trained on.

    job: its name; tokens: rows seen; loss: dimensionless; unexplained: share of the batch's variance that the
    reconstruction misses; l0: mean active latents per row; share_dead: share of latents without firing for the preset's
    window of tokens; tokens_per_s: since the last record, over all jobs of the run; told: what maintainers say of
    themselves, by name (`gba`: `bias_drift`).
    """

    job: str
    tokens: int
    loss: float
    unexplained: float
    l0: float
    share_dead: float
    tokens_per_s: float
    told: Mapping[str, float] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """Plain data."""
        return asdict(self)


class Display:
    """Shows records: one updating line on a terminal, a line now and then elsewhere, nothing when quiet."""

    def __init__(self, n_tokens: int, quiet: bool | None, every_s: float = 5.0) -> None:
        self.n_tokens, self.every_s = n_tokens, every_s
        self.quiet = progress.QUIET if quiet is None else quiet
        self.live = sys.stderr.isatty()
        self.last = time.monotonic()
        self.written = False

    def show(self, records: Sequence[Record]) -> None:
        """Show the latest record of each job; several jobs are summed up by their median and worst error."""
        now = time.monotonic()
        if self.quiet or (not self.live and now - self.last < self.every_s):
            return
        self.last, self.written = now, True
        sys.stderr.write(f"\r\x1b[2K{self.line(records)}" if self.live else f"{self.line(records)}\n")
        sys.stderr.flush()

    def line(self, records: Sequence[Record]) -> str:
        """What is shown: share done, error, L0, dead latents, speed and time left."""
        first = records[0]
        errors = sorted(r.unexplained for r in records)
        left = (self.n_tokens - first.tokens) / max(first.tokens_per_s, 1e-9)
        who = first.job if len(records) == 1 else f"{len(records)} dictionaries"
        worst = "" if len(records) == 1 else f" (worst {errors[-1]:.3f})"
        return (
            f"training {who}: {100 * first.tokens / self.n_tokens:3.0f} %, "
            f"error {errors[len(errors) // 2]:.3f}{worst}, "
            f"L0 {sum(r.l0 for r in records) / len(records):.1f}, "
            f"dead {100 * sum(r.share_dead for r in records) / len(records):.0f} %, "
            f"{first.tokens_per_s / 1000:.1f}k tokens/s, {max(left, 0):.0f} s left"
        )

    def close(self) -> None:
        """End the updating line."""
        if self.live and self.written:
            sys.stderr.write("\n")
