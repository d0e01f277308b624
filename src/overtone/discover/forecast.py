"""What a steering makes of a trace, foretold at the step boundaries of sampled traces: no text is sampled again.

At boundaries of the `select` split, the chances of the first token under a steering are read as chances of what kind
of step comes: sum over tokens of p(token) * share of the kind among the `fit` steps that began with this token after
the same kind of step. Such shares do not know the history, so they are set right by what came there: the written token,
weighed by how much likelier the steering makes it, adds what its step was beyond its share (the doubly robust estimate,
Dudik et al. 2011, arXiv 1103.4601). A token that began no such step is `strange`: that share must not grow. Taken per
kind of the step before, these chances are a Markov chain of kinds, and the expected number of visits, from the start
to the end of a trace, foretells how many steps of each behaviour a steered trace will have: also those that become
rarer or more frequent because other steps do.

A steering of the last layer acts on the first token alone: it is read from the states of all boundaries, at little
cost. For one of an earlier layer fewer places are read, with their histories, and what the edited states do to later
tokens is left out. Errors tell how far chance is off. So this is for choosing, on `select`; what a vector does is
measured on texts.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Protocol

import numpy as np

from overtone.core.errors import DataError
from overtone.core.seeds import numpy_generator
from overtone.core.sites import Site
from overtone.discover.material import FIT, SELECT, Material, Rows

if TYPE_CHECKING:
    from torch import Tensor

    from overtone.models.hooked import HookedModel
    from overtone.steering.plan import Arm

FORECASTS = 3  # raise it when the same states and steerings are foretold, or chosen from, otherwise: kept choices go
PLACES = 600
MOST_TOKENS = 200_000  # of all places' histories, whose keys and values are kept
MOST_LOGITS = 2**25  # entries that are held at once: 128 MB in float32
HEAVIEST = 3.0  # weight of a written token, cut there: a few that became likely would decide everything
RAREST = 1e-30  # chance of a written token: traces that were given may hold what the model never says
SETTLED = 0.97  # share of one kind after another from which on nothing is decided there
FLOOR = 0.01  # steps per trace, so that a behaviour that vanishes has a finite effect
PARTS = 10  # of the problems, left out in turn to tell how far chance is off
START = "start"


@dataclass(frozen=True)
class Foretold:
    """steps: behaviour -> steps per trace that the chain of kinds gives; effects: behaviour -> log( steps / steps
    without the steering ), in nats; errors: their standard errors; strange: by how much the mean chance, over the
    places, of a first token that began no step there grows, in [-1, 1]."""

    steps: dict[str, float]
    effects: dict[str, float]
    errors: dict[str, float]
    strange: float


class _Next(Protocol):
    """Says what comes at some places under a steering."""

    def chances(self, steering: Arm) -> Iterator[tuple[Tensor, Tensor]]:
        """Parts of the places: their indices (n,), and the chances of their next tokens, (n, vocabulary)."""
        ...


class _FromHistories:
    """Next tokens at the ends of texts, under any steering from the first site on."""

    def __init__(self, model: HookedModel, texts: Sequence[Sequence[int]], first: Site) -> None:
        from overtone.steering.places import Places

        self._ends = Places(model, texts, first=first)

    def chances(self, steering: Arm) -> Iterator[tuple[Tensor, Tensor]]:
        """All places at once."""
        import torch

        yield torch.arange(self._ends.n), self._ends.logits(steering).softmax(-1)


class _FromStates:
    """Next tokens read from the last states, (places, width), under a steering of these; tokens: (places,) the tokens
    whose states they are. Of a steering's clauses only `after` is asked: step boundaries lie where the others hold."""

    def __init__(self, model: HookedModel, states: Tensor, tokens: Sequence[int]) -> None:
        self.model, self.states, self.tokens = model, states, tokens

    def chances(self, steering: Arm) -> Iterator[tuple[Tensor, Tensor]]:
        """As many places at a time as may be held."""
        import torch

        from overtone.steering.steer import Steering

        for at in torch.arange(len(self.states)).split(max(1, MOST_LOGITS // self.model.vocab_size)):
            rows = self.states[at]
            for one in steering:
                assert isinstance(one, Steering)  # only edits of the last states come here
                after = one.when.after
                acts = torch.tensor([after is None or self.tokens[i] in after for i in at.tolist()])
                rows = one.edited(rows, acts)
            with torch.inference_mode():
                yield at, self.model.unembed(rows.to(self.model.device)).float().cpu().softmax(-1)


class _Places:
    """Boundaries with what came there. index: among the rows; before: kind of the step before, by place -> its places;
    written: (n,) first tokens; shown: (n, kinds) 1 for the kind of the step that came; part: (n,) number of the part
    that is left out together; chance: (n,) of the written token, unsteered."""

    def __init__(self, forecast: Forecast, index: Sequence[int], source: _Next) -> None:
        import torch

        rows, material = forecast.rows, forecast.material
        document, token, step = (part.tolist() for part in (rows.where.document, rows.where.token, rows.where.step))
        self.index, self.source, n = list(index), source, len(index)
        kinds = {doc: material.subject.kinds(material.traces[doc]) for doc in {document[i] for i in index}}
        self.before = {kind: torch.tensor([rows.previous[i] == kind for i in index]) for kind in forecast.open_kinds}
        self.written = torch.tensor([material.traces[document[i]].tokens[token[i] + 1] for i in index])
        self.shown = torch.zeros(n, len(forecast.kinds))
        self.shown[torch.arange(n), [forecast.kinds.index(kinds[document[i]][step[i]]) for i in index]] = 1
        self.part = np.unique([rows.groups[i] for i in index], return_inverse=True)[1] % PARTS
        self.chance = torch.ones(n)
        for at, p in source.chances(()):
            self.chance[at] = p[torch.arange(len(at)), self.written[at]].clamp_min(RAREST)


class Forecast:
    """Places on `select`, the reading of first tokens learned on `fit`, and the chain of kinds.

    n: places with histories at most (fewer where these are long). Raises DataError if nothing is decided at any
    boundary.
    """

    def __init__(self, material: Material, rows: Rows, *, n: int = PLACES, seed: int = 0) -> None:
        self.material, self.rows, self.behaviours = material, rows, material.behaviours
        seen = (t for split in (FIT, SELECT) for t in material.of(split))
        self.kinds = tuple(sorted({k for t in seen for k in material.subject.kinds(t)} | {START}))
        self._read, self._known, self._usual = self._reading()
        self.open_kinds = {kind for kind, row in self._usual.items() if row.max() < SETTLED}
        self._open = [i for i in rows.index(SELECT).tolist() if rows.previous[i] in self.open_kinds]
        if not self._open:
            raise DataError("no step boundary of the selection split leaves a choice. Sample more or longer traces.")
        self._n, self._seed = n, seed
        self._plain: dict[int, tuple[np.ndarray, float]] = {}

    @property
    def _fit(self) -> list:
        return self.material.of(FIT)

    @cached_property
    def last(self) -> Site | None:
        """The last layer, if its states were read and a state there gives the next token."""
        model = self.material.subject.model
        site = Site("residual", model.n_layers - 1)
        return site if site in self.rows.x and "unembed" not in model.adapter.absent else None

    @cached_property
    def some(self) -> _Places:
        """Places whose histories are kept."""
        document, token = self.rows.where.document.tolist(), self.rows.where.token.tolist()
        chosen = numpy_generator(self._seed, "places").permutation(self._open)[: self._n]
        kept = np.cumsum([token[i] + 1 for i in chosen]) <= MOST_TOKENS
        index = sorted(chosen[kept].tolist()) or [min(self._open, key=lambda i: token[i])]
        texts = [self.material.traces[document[i]].tokens[: token[i] + 1] for i in index]
        first = min(self.rows.x, key=lambda site: site.layer)
        return _Places(self, index, _FromHistories(self.material.subject.model, texts, first))

    @cached_property
    def every(self) -> _Places:
        """All places, by their last states."""
        assert self.last is not None
        states, where = self.rows.x[self.last][self._open], self.rows.where
        at = zip(where.document[self._open].tolist(), where.token[self._open].tolist(), strict=True)
        tokens = [self.material.traces[document].tokens[token] for document, token in at]
        return _Places(self, self._open, _FromStates(self.material.subject.model, states, tokens))

    def under(self, steering: Arm) -> Foretold:
        """The forecast under a steering."""
        return self._foretold(self._read_for([getattr(one, "site", None) for one in steering]), steering)

    def plain(self, site: Site) -> Foretold:
        """The forecast without steering, from the places that are read for steerings of a site."""
        return self._foretold(self._read_for([site]), ())

    def _read_for(self, sites: Sequence[Site | None]) -> _Places:
        return self.every if self.last is not None and all(site == self.last for site in sites) else self.some

    def _foretold(self, places: _Places, steering: Arm) -> Foretold:
        if id(places) not in self._plain:
            self._plain[id(places)] = self._steps(places, ())
        plain, strange_before = self._plain[id(places)]
        steps, strange = self._steps(places, steering) if steering else (plain, strange_before)
        effects = np.log((steps + FLOOR) / (plain + FLOOR))
        errors = np.sqrt((PARTS - 1) * effects[1:].var(0))  # jackknife
        by_name = (dict(zip(self.behaviours, of.tolist(), strict=True)) for of in (steps[0], effects[0], errors))
        return Foretold(*by_name, strange=strange - strange_before)

    def _steps(self, places: _Places, steering: Arm) -> tuple[np.ndarray, float]:
        """Steps per trace, (1 + PARTS, behaviours): of all places, then with each part left out; and the mean chance of
        strange first tokens."""
        seen = {kind: np.zeros((PARTS, len(self.kinds))) for kind, own in places.before.items() if bool(own.any())}
        known = 0.0
        for at, p in places.source.chances(steering):
            for kind, found in seen.items():
                own = places.before[kind][at]
                place, chances, read = at[own], p[own], self._read[kind]
                written = places.written[place]
                weight = (chances[range(len(place)), written] / places.chance[place]).clamp_max(HEAVIEST)
                told = chances @ read + weight[:, None] * (places.shown[place] - read[written])
                np.add.at(found, places.part[place.numpy()], told.double().numpy())
                known += float((chances @ self._known[kind]).sum())
        wholes = {kind: found.sum(0) - np.vstack([np.zeros(len(self.kinds)), found]) for kind, found in seen.items()}
        steps = [self._visited({kind: rows[i].clip(0) for kind, rows in wholes.items()}) for i in range(1 + PARTS)]
        return np.stack(steps), 1 - known / len(places.written)

    def _visited(self, seen: Mapping[str, np.ndarray]) -> np.ndarray:
        """Steps of each behaviour per trace, (behaviours,), from weights of the kinds after each kind."""
        counted = {kind: row for kind, row in seen.items() if row.any()}
        return _visits(self.kinds, self._usual | counted, self._ending) @ self._named

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
