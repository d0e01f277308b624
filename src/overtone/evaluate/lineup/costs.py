"""What a training will roughly take, found by a small piece of it: for an announcement and for the time left."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields, replace
from typing import TYPE_CHECKING, TypeVar

from overtone.core.devices import clock_of
from overtone.evaluate.compare import Sample, measured

if TYPE_CHECKING:
    from overtone.dictionaries.dictionary import Dictionary
    from overtone.dictionaries.preset import Preset
    from overtone.evaluate.lineup.shelf import Order

_Made = TypeVar("_Made")
UPDATES = 5  # that are timed, after a first one
SHARE = 32  # of the rows that are tried, where they decide


def expected_seconds(order: Order, rows: Sample) -> float:
    """Seconds, as `clock_of` its device has them, that a training and its measurement will roughly take (within a
    factor of two or so: early updates of some presets are denser than later ones, and searches may end early). Raises
    what the training raises."""
    preset = order.entrant.preset
    seconds, dictionary = (_whole if preset.whole else _stepped)(order, rows)
    some = rows.held_out[: max(2, len(rows.held_out) // SHARE)]  # a variance needs two
    measuring, _ = _timed(lambda: measured(dictionary, replace(rows, held_out=some)), clock_of("cpu"))
    return seconds + measuring * len(rows.held_out) / len(some)


def _stepped(order: Order, rows: Sample) -> tuple[float, Dictionary]:
    from overtone.training.fit import Job, fit_many

    size, clock = min(order.batch_rows, len(rows.train)), clock_of(order.device)
    times = [clock()]
    (one,) = fit_many(
        [Job(order.entrant.preset, lr=order.lr)], rows.source, n_tokens=(UPDATES + 1) * size,
        batch_rows=order.batch_rows, seed=order.seed, record_every=size, quiet=True,
        on_record=lambda _: times.append(clock()), device=order.device,
    )  # fmt: skip
    each = (times[-1] - times[1]) / UPDATES
    return times[1] - times[0] + each * max(0, order.n_tokens / size - 1), one.dictionary


def _whole(order: Order, rows: Sample) -> tuple[float, Dictionary]:
    preset, n = order.entrant.preset, min(order.n_tokens, len(rows.train))
    clock = clock_of(order.device)
    if any(f.name == "iterations" for f in fields(preset)):
        first, _ = _timed(lambda: _fitted(preset.replaced(iterations=1), order, rows, n), clock)
        third, dictionary = _timed(lambda: _fitted(preset.replaced(iterations=3), order, rows, n), clock)
        each = max(0.0, third - first) / 2
        return first + each * (preset.to_dict()["iterations"] - 1), dictionary
    some = min(n, max(2 * preset.n_latents, n // SHARE))
    seconds, dictionary = _timed(lambda: _fitted(preset, order, rows, some), clock)
    return seconds * n / some, dictionary


def _fitted(preset: Preset, order: Order, rows: Sample, n: int) -> Dictionary:
    from overtone.training.fit import Job, fit_many

    (one,) = fit_many([Job(preset)], rows.source, n_tokens=n, batch_rows=order.batch_rows, seed=order.seed, quiet=True)
    return one.dictionary


def _timed(do: Callable[[], _Made], clock: Callable[[], float]) -> tuple[float, _Made]:
    began = clock()
    made = do()
    return clock() - began, made
