"""What a steering makes of a trace, foretold from the first tokens of its steps: no text is sampled.

At step boundaries of the `select` split, the chances of the first token under a steering are read as chances of what
kind of step comes: P(kind) = sum over tokens of p(token) * share of the kind among the `fit` steps that began with this
token after the same kind of step. A token that began no such step is `strange`: that share must not grow. Taken per
kind of the step before, these chances are a Markov chain of kinds, and the expected number of visits, from the start
to the end of a trace, foretells how many steps of each behaviour a steered trace will have: also those that become
rarer or more frequent because other steps do.

An edit of the last layer acts on the first token alone; for an earlier layer, what the edited state does to later
tokens is left out. So this is for choosing, on `select`; what a vector does is measured on texts.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from overtone.core.errors import DataError
from overtone.core.seeds import numpy_generator
from overtone.discover.material import FIT, SELECT, Material, Rows

if TYPE_CHECKING:
    from torch import Tensor

    from overtone.steering.plan import Arm

PLACES = 300
MOST_TOKENS = 200_000  # of all places' histories, whose keys and values are kept
SETTLED = 0.97  # share of one kind after another from which on nothing is decided there
FLOOR = 0.01  # steps per trace, so that a behaviour that vanishes has a finite effect
START = "start"


@dataclass(frozen=True)
class Foretold:
    """steps: behaviour -> steps per trace that the chain of kinds gives; strange: mean chance, over the places, of a
    first token that began no step there, in [0, 1]."""

    steps: dict[str, float]
    strange: float

    def effect(self, behaviour: str, base: Foretold) -> float:
        """log( steps / steps at `base` ), in nats."""
        return float(np.log((self.steps[behaviour] + FLOOR) / (base.steps[behaviour] + FLOOR)))


class Forecast:
    """Places on `select`, the reading of first tokens learned on `fit`, and the chain of kinds; `base` is the forecast
    without steering.

    n: places at most (fewer where their histories are long). Raises DataError if nothing is decided at any boundary.
    """

    def __init__(self, material: Material, rows: Rows, *, n: int = PLACES, seed: int = 0) -> None:
        from overtone.steering.places import Places

        self.material, self.rows, self.behaviours = material, rows, material.behaviours
        self.kinds = tuple(sorted({k for t in self._fit for k in material.subject.kinds(t)} | {START}))
        self._read, self._known, self._usual = self._reading()
        open_kinds = {kind for kind, row in self._usual.items() if row.max() < SETTLED}
        places = [i for i in rows.index(SELECT).tolist() if rows.previous[i] in open_kinds]
        if not places:
            raise DataError("no step boundary of the selection split leaves a choice. Sample more or longer traces.")
        tokens = {t.document: t.tokens for t in material.traces}
        document, token = rows.where.document.tolist(), rows.where.token.tolist()
        chosen = numpy_generator(seed, "places").permutation(places)[:n]
        kept = np.cumsum([token[i] + 1 for i in chosen]) <= MOST_TOKENS
        self.places = sorted(chosen[kept].tolist()) or [min(places, key=lambda i: token[i])]
        self._ends = Places(material.subject.model, [tokens[document[i]][: token[i] + 1] for i in self.places])
        self.base = self.under(())

    @property
    def _fit(self) -> list:
        return self.material.of(FIT)

    def under(self, steering: Arm) -> Foretold:
        """The forecast under a steering."""
        p = self._ends.logits(steering).softmax(-1)
        before = [self.rows.previous[i] for i in self.places]
        next_kinds = np.stack([(row @ self._read[kind]).numpy() for row, kind in zip(p, before, strict=True)])
        known = np.array([float((row * self._known[kind]).sum()) for row, kind in zip(p, before, strict=True)])
        seen = {kind: next_kinds[[b == kind for b in before]].sum(0) for kind in set(before)}
        steps = _visits(self.kinds, self._usual | seen, self._ending) @ self._named
        return Foretold(dict(zip(self.material.behaviours, steps.tolist(), strict=True)), float(1 - known.mean()))

    @cached_property
    def _ending(self) -> np.ndarray:
        """Chance that a trace ends after each kind, (kinds,), among the `fit` traces."""
        ends, shown = Counter(), Counter()
        for trace in self._fit:
            kinds = self.material.subject.kinds(trace)
            shown.update(kinds)
            ends.update(kinds[-1:])
        return np.array([ends[k] / max(1, shown[k]) for k in self.kinds])

    @cached_property
    def _named(self) -> np.ndarray:
        """Share of each behaviour in each kind, (kinds, behaviours), among the `fit` steps."""
        behaviours, counts = self.material.behaviours, Counter()
        for trace in self._fit:
            counts.update(zip(self.material.subject.kinds(trace), self.material.labels[trace.document], strict=True))
        table = np.array([[counts[k, b] for b in behaviours] for k in self.kinds], dtype=float)
        total = np.array([sum(n for (kind, _), n in counts.items() if kind == k) for k in self.kinds])
        return table / np.maximum(total, 1)[:, None]

    def _reading(self) -> tuple[dict[str, Tensor], dict[str, Tensor], dict[str, np.ndarray]]:
        """Per kind of the step before, among the `fit` steps: (tokens, kinds) share of each kind given the first token,
        (tokens,) 1 where a step began so, and (kinds,) shares of the kinds."""
        import torch

        rows, place = self.rows, {kind: k for k, kind in enumerate(self.kinds)}
        tokens = {t.document: t.tokens for t in self._fit}
        kinds = {t.document: self.material.subject.kinds(t) for t in self._fit}
        document, token, step = (part.tolist() for part in (rows.where.document, rows.where.token, rows.where.step))
        shape = self.material.subject.model.vocab_size, len(self.kinds)
        counts = {kind: torch.zeros(shape) for kind in {rows.previous[i] for i in range(len(rows.previous))}}
        for i in rows.index(FIT).tolist():
            counts[rows.previous[i]][tokens[document[i]][token[i] + 1], place[kinds[document[i]][step[i]]]] += 1
        total = {kind: table.sum(1, keepdim=True) for kind, table in counts.items()}
        usual = {kind: (t.sum(0) / t.sum().clamp_min(1)).numpy() for kind, t in counts.items() if t.any()}
        return (
            {kind: table / total[kind].clamp_min(1) for kind, table in counts.items()},
            {kind: (n[:, 0] > 0).float() for kind, n in total.items()},
            usual,
        )


def _visits(kinds: Sequence[str], following: Mapping[str, np.ndarray], ending: np.ndarray) -> np.ndarray:
    """Expected visits of each kind in a chain that starts at START, (kinds,). following: kind -> weights of what comes
    next; ending: chance that the chain ends after each kind."""
    n = len(kinds)
    chain = np.zeros((n, n))
    for i, kind in enumerate(kinds):
        row = following.get(kind, np.zeros(n))
        chain[i] = (1 - ending[i]) * row / max(row.sum(), 1e-12)
    start = np.eye(n)[kinds.index(START)]
    return np.linalg.solve(np.eye(n) - 0.999 * chain.T, start) - start  # 0.999: a chain that never ends is cut
