"""Selection in plain torch in two stages, exact, for processors that multiply int8 or bf16 numbers fast.

    1  bounds that the scores do not exceed, from products in few bits (`bounds.py`), block of rows by block of rows:
       the only (rows, latents) matrices, one block of them at a time. All whose bounds reach the floor of their row are
       nominees.
    2  scores of nominees in float32. Those that reach the floor are all that do; the k best of them are the choice.
Without k the floor is given. With k it may be the k-th of any scores, which k surely reach: at first, of the places
with the largest bounds. Afterwards it is foretold, by how far below the k-th bound it was before; rows in which fewer
than k reach it are done again, as the first were. There is no list of fixed length that could be too short, and nothing
is missed on any data (with int8, once in 10^17 places: `rounded.py`). Where the bounds of int8 leave too many nominees,
bf16 serves for a while.
"""

from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor
from torch.utils.weak import WeakTensorKeyDictionary

from overtone.dictionaries.choice import Chosen
from overtone.dictionaries.codes import Support, positions
from overtone.dictionaries.kernels import memory, sparse
from overtone.dictionaries.kernels.bounds import GROUP, Bounds, Limits, Problem
from overtone.dictionaries.kernels.nominees import Rest
from overtone.dictionaries.kernels.rounded import Counting, Kind, Rounded
from overtone.dictionaries.kernels.whole import Seen, Whole
from overtone.dictionaries.selectors.base import Rule

BLOCK = 512  # rows for each thread; more of them leave the cache, fewer keep threads waiting for each other
FEW = 1 / 40  # share of latents in nominees up to which int8 is faster than bf16
AGAIN = 0.005  # share of rows that are done again
MANY = 1 / 8  # share of nominees from which the dictionary's own way is no slower
SOME = 2**16  # nominees of a block that are never too many
FEWEST = 2**21  # scores up to which the dictionary's own way is faster

Weights = tuple[Rounded, Rounded | None]  # of both products


class Candidates:
    """The selection with some kinds of few bits, the fastest first. scored: nominees since the start."""

    def __init__(self, *kinds: Kind) -> None:
        self.kinds, self.scored = list(kinds), 0
        self.kept, self.seen = WeakTensorKeyDictionary(), WeakTensorKeyDictionary()
        memory.ON_RELEASE.extend((self.kept.clear, self.seen.clear))

    def select(self, centred: Tensor, weight: Tensor, bias: Tensor, rule: Rule, two_sided: bool) -> Chosen | None:
        """As `choose.Select`; None where scores are few, where groups do not divide the latents or are fewer than k,
        where bounds leave too much of the work, and where numbers are not finite, as in a training that diverged."""
        n_latents = len(weight)
        if len(centred) * n_latents <= FEWEST or n_latents % GROUP or n_latents // GROUP < rule.k:
            return None
        shift = None if rule.shift is None else rule.shift.float()
        problem = Problem(centred, weight, bias, shift, rule, two_sided)
        rest = self.kept.get(weight)
        if rest is None:
            rest, self.seen[weight] = Rest(), Seen()
            self.kept[weight] = rest
        seen = self.seen[weight]
        for kind in self.kinds[1:] if len(self.kinds) > 1 and rest.due() else self.kinds:
            chosen, scored = _chosen(problem, kind, seen)
            self.scored += scored
            if kind is self.kinds[0]:
                products = 1 if rule.boost is None else 2
                few = 0 if chosen is None else products * FEW * n_latents * len(centred) + 3 * len(chosen.u)
                rest.weigh(chosen is None or scored > few)
            if chosen is not None:
                return chosen
        return None


@dataclass(frozen=True, eq=False)
class _Nominees:
    """All places whose scores may reach (rows,) floors, with their z / (1 + f) where scores are boosted. level: (rows,)
    as in `Bounds`, of ranks."""

    at: Support
    z: Tensor | None
    floors: Tensor
    level: Tensor
    limits: Limits

    @classmethod
    def joined(cls, parts: "list[_Nominees]") -> "_Nominees":
        """Of the rows of several, one after the other."""
        z = [part.z for part in parts if part.z is not None]
        floors, level = (torch.cat([getattr(part, name) for part in parts]) for name in ("floors", "level"))
        limits = Limits.joined([part.limits for part in parts])
        return cls(Support.joined([part.at for part in parts]), torch.cat(z) if z else None, floors, level, limits)

    def gap(self, best: Tensor) -> Tensor:
        """() how far below the level k-th scores lie in all but a few rows, given (rows, k) best scores."""
        return _gap(self.level, best.amin(1), self.limits)


@dataclass(frozen=True, eq=False)
class _Found:
    """Places with pre-activations, scores and boosts, all (n,)."""

    at: Support
    u: Tensor
    scores: Tensor
    boosts: Tensor | None = None

    def kept(self, keep: Tensor) -> "_Found":
        """The places of an (n,) mask."""
        which = positions(keep)
        boosts = None if self.boosts is None else self.boosts.index_select(0, which)
        u, scores = (part.index_select(0, which) for part in (self.u, self.scores))
        return _Found(self.at.taken(which), u, scores, boosts)

    def by_row(self, first: int, k: int) -> tuple[Tensor, Tensor]:
        """(rows, k or most places of a row) scores of a block of rows, less than any where a row has none; and their
        places in the list."""
        starts, n = self.at.row_starts[first : first + _block() + 1], len(self.u)
        if len(starts) <= _block():
            starts = torch.cat([starts, starts.new_tensor([n])])
        counts, starts = starts.diff().unsqueeze(1), starts[:-1].unsqueeze(1)
        slots = torch.arange(max(k, int(counts.max())))
        where = (starts + slots).clamp_(max=n - 1)
        return torch.where(slots < counts, self.scores[where], -torch.inf), where


def _chosen(problem: Problem, kind: Kind, seen: Seen) -> tuple[Chosen | None, int]:
    """The choice by a kind of few bits, None where that cannot serve, and how many places were scored."""
    weights = problem.rounded(kind)
    if weights is None:
        return None, 0
    choice = _reaching(problem, weights, seen)
    if choice is None:
        return None, 0
    found, scored = choice
    sides = {} if problem.rule.boost is None or found.boosts is None else {problem.rule.boost.head: found.boosts}
    return Chosen(found.at, found.u, sides), scored


def _reaching(problem: Problem, weights: Weights, seen: Seen, careful: bool = False) -> tuple[_Found, int] | None:
    """What is chosen, and how many places were scored. careful: nothing is foretold. None where nominees are too many
    or numbers not finite."""
    nominees, k = _nominated(problem, weights, seen, careful), problem.rule.k
    if nominees is None:
        return None
    scored = len(nominees.at.latents)
    found = _scored(problem, nominees.at, nominees)
    floors = nominees.floors.index_select(0, found.at.rows)
    if not k:
        return found.kept(found.scores > floors), scored
    found = found.kept(found.scores >= floors)
    few = positions(torch.bincount(found.at.rows, minlength=found.at.n_rows) < k)
    best = _top(found, k) if len(few) < found.at.n_rows else None
    if len(few):
        again = None if careful else _reaching(problem.of(few), weights, seen, careful=True)
        if again is None:
            return None
        best, scored = again[0] if best is None else _replaced(best, few, again[0]), scored + again[1]
    assert best is not None
    if not careful:
        seen.gaps[weights[0].kind.name] = nominees.gap(best.scores.view(-1, k))
    return best, scored


def _nominated(problem: Problem, weights: Weights, seen: Seen, careful: bool) -> _Nominees | None:
    parts, gap = [], None if careful else seen.gaps.get(weights[0].kind.name)
    for start in range(0, len(problem.states), _block()):
        block = problem.of(slice(start, start + _block()))
        bounds = Bounds.of(block, *weights) if careful else _bounds(block, weights, seen, gap)
        if bounds is None:
            return None
        limits, k = bounds.limits, problem.rule.k
        level = bounds.level(k) if k else torch.full_like(limits.steps, problem.rule.floor)
        if not k:
            floors, places = level, bounds.places(limits(level))
        elif gap is not None:
            floors, places = bounds.foretold(gap, k)
        else:
            reach = bounds.places(level)
            if _too_many(len(reach), block):
                return None
            floors = _kth(_scored(block, _support(reach, block)), k)
            if not careful:
                gap = _gap(level, floors, limits)
            floors = bounds.above(floors)
            places = bounds.places(limits(floors))
        if _too_many(len(places), block):
            return None
        parts.append(_Nominees(_support(places, block), bounds.z_at(places), floors, level, limits))
    return _Nominees.joined(parts)


def _gap(level: Tensor, floors: Tensor, limits: Limits) -> Tensor:
    """() how far below (rows,) levels floors lie in all but a few rows."""
    return ((level - floors / limits.units) / limits.excess(level)).nan_to_num(0.0, 0.0, 0.0).quantile(1 - AGAIN)


def _bounds(block: Problem, weights: Weights, seen: Seen, gap: Tensor | None) -> Bounds | Whole | None:
    """In whole numbers where they serve."""
    found, kind = None, weights[0].kind
    if block.rule.k and not block.two_sided and isinstance(kind, Counting):
        found = Whole.of(block, kind, *weights, seen, gap)
    return found or Bounds.of(block, *weights)


def _scored(problem: Problem, at: Support, nominees: _Nominees | None = None) -> _Found:
    """The scores of places in float32, without nominees of which u alone shows that they do not reach their floors."""
    u = sparse.TORCH.products(problem.states, problem.weight, at).add_(at.at(problem.bias))
    scores, boost = u if problem.shift is None else u - at.at(problem.shift), problem.rule.boost
    found = _Found(at, u, scores.abs() if problem.two_sided else scores)
    if boost is None:
        return found
    if nominees is not None and nominees.z is not None:
        most = nominees.limits.lifted(found.scores, nominees.z, at.rows)
        found = found.kept(most >= nominees.floors.index_select(0, at.rows))
    boosts = sparse.TORCH.products(boost.states, boost.weight, found.at).abs_()
    return replace(found, scores=torch.addcmul(found.scores, found.scores, boosts), boosts=boosts)


def _kth(found: _Found, k: int) -> Tensor:
    """(rows,) scores of the k-th best places of a block of rows."""
    return found.by_row(0, k)[0].topk(k, dim=1, sorted=False).values.amin(1)


def _top(found: _Found, k: int) -> _Found:
    """The k best places of each row; any where there are fewer. They are in order of latents, and of equal ones the
    first, so that they do not depend on what else was nominated."""
    parts = []
    for start in range(0, found.at.n_rows, _block()):
        scores, where = found.by_row(start, k)
        parts.append(where.gather(1, _first_best(scores, k)))
    best = torch.cat(parts).view(-1)
    boosts = None if found.boosts is None else found.boosts[best]
    support = Support.from_indices(found.at.latents[best].view(-1, k), found.at.n_latents)
    return _Found(support, found.u[best], found.scores[best], boosts)


def _first_best(scores: Tensor, k: int) -> Tensor:
    """(rows, k) places of the k best of (rows, n) scores, in order; of equal ones the first."""
    numbers = scores.numpy()
    least = np.partition(numbers, -k, axis=1)[:, -k]
    best = numbers >= least[:, None]
    uneven = np.flatnonzero(best.sum(1) != k)  # where some are equal
    best[uneven] = False
    best[uneven[:, None], np.argsort(-numbers[uneven], axis=1, kind="stable")[:, :k]] = True
    return torch.from_numpy(np.flatnonzero(best) % numbers.shape[1]).view(-1, k)


def _replaced(found: _Found, rows: Tensor, by: _Found) -> _Found:
    """With other places, as many, in some rows."""
    k = found.at.per_row or 1
    where = (rows.unsqueeze(1) * k + torch.arange(k)).view(-1)
    found.at.latents[where], found.u[where], found.scores[where] = by.at.latents, by.u, by.scores
    if found.boosts is not None and by.boosts is not None:
        found.boosts[where] = by.boosts
    return found


def _block() -> int:
    """Rows of a block."""
    return BLOCK * torch.get_num_threads()


def _too_many(n: int, block: Problem) -> bool:
    return n > max(SOME, MANY * len(block.states) * len(block.weight))


def _support(places: Tensor, block: Problem) -> Support:
    """Positions in (rows, latents) as a support."""
    n_rows, n_latents = len(block.states), len(block.weight)
    ends = torch.searchsorted(places, torch.arange(1, n_rows + 1) * n_latents)
    rows = torch.arange(n_rows).repeat_interleave(ends.diff(prepend=ends.new_zeros(1)))
    return Support(rows, places - rows * n_latents, n_rows, n_latents)
