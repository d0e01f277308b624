"""Two ways to the same bits, of which one is faster here: found by trying both."""

from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from time import perf_counter

TRIES = 3  # of each way


@dataclass(eq=False)
class Trial:
    """Times of both ways, in turns for as long as there are few."""

    times: dict[bool, list[float]] = field(default_factory=lambda: {False: [], True: []})

    @property
    def due(self) -> bool:
        """The way that is due: the one that was tried less, then the faster one."""
        if len(self.times[True]) < TRIES:
            return len(self.times[True]) < len(self.times[False])
        return min(self.times[True]) < min(self.times[False])

    @contextmanager
    def way(self) -> Iterator[bool]:
        """The way that is due, which is taken inside."""
        due, start = self.due, perf_counter()
        yield due
        if len(self.times[True]) < TRIES:
            self.times[due].append(perf_counter() - start)


class Slices:
    """Whether sums by latent are made slice by slice; see `sums.h`. possible: of (rows, width, places), whether that is
    worth a trial."""

    def __init__(self, possible: Callable[[int, int, int], int]) -> None:
        self.possible = possible
        self.trials: dict[tuple[str, int, int], Trial] = defaultdict(Trial)

    def way(self, use: str, n_rows: int, width: int, places: int) -> AbstractContextManager[bool]:
        """The way that is due for a use, taken inside."""
        if not self.possible(n_rows, width, places):
            return nullcontext(False)
        return self.trials[use, n_rows, width].way()
