"""Strengths of equal effect: the absolute strength whose KL to the unsteered model is a given number of nats
(iso-KL).
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from overtone.core.errors import DataError, SettingError
from overtone.data.traces import ReasoningTrace
from overtone.steering.measure import Comparison, Positions
from overtone.steering.plan import Arm

if TYPE_CHECKING:
    from overtone.models.hooked import HookedModel


@dataclass(frozen=True)
class Calibrated:
    """A strength and the KL it was measured to have, in nats; tried: every (strength, nats) on the way, in order."""

    strength: float
    nats: float
    tried: tuple[tuple[float, float], ...]


def strength_for_kl(
    model: "HookedModel",
    traces: Sequence[ReasoningTrace],
    make: Callable[[float], Arm],
    nats: float,
    *,
    start: float = 1.0,
    limit: float = 1e4,
    tolerance: float = 0.05,
    max_tries: int = 30,
    positions: Positions = "steered",
) -> Calibrated:
    """The strength c > 0 for which `make(c)` has a mean KL(steered || unsteered) of `nats`.

    make: strength -> steerings, such as ``lambda c: [Steering(direction, Add(-c), when)]`` (a sign belongs inside).
    start: first guess; the bracket grows from it by the rule KL ~ c^2, up to limit; then it is narrowed by secants in
    the logarithm, and by bisection where they stall, until |KL / nats - 1| <= tolerance. The KL should grow with c;
    if it does not, the result is one of the crossings. Raises SettingError for nats, start or tolerance not above 0;
    DataError with the numbers seen if no strength up to the limit has the effect, or the positions are never steered.
    """
    return calibrated(Comparison(model, traces, positions), make, nats, start=start, limit=limit, tolerance=tolerance,
                      max_tries=max_tries)  # fmt: skip


def calibrated(
    comparison: Comparison,
    make: Callable[[float], Arm],
    nats: float,
    *,
    start: float = 1.0,
    limit: float = 1e4,
    tolerance: float = 0.05,
    max_tries: int = 30,
) -> Calibrated:
    """`strength_for_kl` against a `Comparison` that is there already: the unsteered pass is not repeated."""
    if not (nats > 0 and start > 0 and tolerance > 0):
        raise SettingError(
            f"nats={nats}, start={start}, tolerance={tolerance} must be above 0; a sign belongs into `make`."
        )
    tried: list[tuple[float, float]] = []
    low, high, c = 0.0, math.inf, min(start, limit)
    for _ in range(max_tries):
        kl = comparison.measure(make(c)).mean
        if math.isnan(kl):
            raise DataError(
                "no position of these traces is steered, so there is no KL. Check the `When` and the traces."
            )
        tried.append((c, kl))
        if abs(kl / nats - 1) <= tolerance:
            return Calibrated(c, kl, tuple(tried))
        low, high = (c, high) if kl < nats else (low, c)
        if low >= limit or high <= start * 1e-6:
            break
        c = min(_next_guess(low, high, nats, tried), limit)
    seen = ", ".join(f"{c:.4g}: {kl:.4g}" for c, kl in tried[-3:])
    raise DataError(
        f"no strength up to {limit:g} found with a KL of {nats:g} nats (within {tolerance:.0%}); "
        f"last strengths and their nats: {seen}. "
        "Ask for another effect, raise the limit, or check that the edit can change these states."
    )


def _next_guess(low: float, high: float, nats: float, tried: list[tuple[float, float]]) -> float:
    """Where KL ~ c^2 through the last point meets the target; the middle of the bracket if that lies outside it or
    stalls.
    """
    c, kl = tried[-1]
    guess = c * min(max(math.sqrt(nats / kl), 0.1), 10.0) if kl > 0 else c * 10.0
    if len(tried) >= 2 and kl > 0 and tried[-2][1] > 0 and tried[-2] != tried[-1]:
        slope = math.log(kl / tried[-2][1]) / math.log(c / tried[-2][0]) if c != tried[-2][0] else 0.0
        if 0.2 < slope < 20:
            guess = c * min(max((nats / kl) ** (1 / slope), 0.1), 10.0)
    if math.isinf(high):
        return guess if guess > low else low * 2
    inside = low < guess < high
    if inside and len(tried) % 4:  # every fourth try bisects, so that a bad model of the curve cannot stall the search
        return guess
    return math.sqrt(low * high) if low > 0 else high / 4
