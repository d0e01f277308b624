"""Selection in plain torch in two stages, exact, for processors that multiply bf16 numbers fast.

    1  scores in bf16, block of rows by block of rows: the only (rows, latents) matrices, one block of them at a time.
       |<x,w> - <x',w'>| <= |x - x'| |w| + |x'| |w - w'| + rounding, x', w' the rounded vectors, bounds the error.
       Nominees of a row: all that may belong to it within the bound. For the k best, k groups of latents have maxima
       that reach some level, so no latent further below that level than twice the bound can be among them.
    2  nominees again in float32, from which the choice is made.
There is no list of fixed length that could be too short, so nothing is missed and no row needs a second pass.

Where scores are boosted, s = u (1 + v), v = |<a,b>|: with bounds e on u and f on v, and v at most m in a row,
|s - s'| <= |u'| f + e (1 + v') + e f <= max(|s'| f + e, |s'| f / (1 + m) + e (1 + m)) + e f, as |s'| = |u'| (1 + v').
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from overtone.dictionaries.autoencoder import Chosen
from overtone.dictionaries.codes import Support
from overtone.dictionaries.selectors.base import Rule
from overtone.training.kernels import sparse

GROUP = 16  # latents in a group; large groups make maxima cheap, small ones make few nominees that are not chosen
BLOCK = 512  # rows; more of them leave the cache
HALF = 2.0**-8  # relative rounding error of bf16
COARSE = 0.9  # error of boosts from which scores that are larger need not be better


def is_fast() -> bool:
    """Whether this processor has instructions for products of bf16 numbers."""
    known = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
    return any(getattr(torch.cpu, name, lambda: False)() for name in known)


@dataclass(frozen=True, eq=False)
class _Bound:
    """By how much rounded scores may be wrong, by row: e, f and 1 + m of the head of this file, and `grain`, the
    relative rounding of the score itself."""

    e: Tensor
    f: Tensor | float = 0.0
    most: Tensor | float = 1.0
    grain: float = 1.01 * HALF

    def at(self, scores: Tensor) -> Tensor:
        """(rows,) what (rows,) scores may be wrong by."""
        size, steep = scores.abs(), self.f + self.grain
        ends = size * steep + self.e, size * (self.f / self.most + self.grain) + self.e * self.most
        return torch.maximum(*ends) + self.e * self.f

    def limit(self, true: Tensor) -> Tensor:
        """(rows,) rounded scores below which the true one is below (rows,) numbers."""
        wrong, steep = self.at(true), self.f + self.grain
        rest = true - self.e * (self.most + self.f)  # for numbers that the error may change the sign of
        safe = rest / (1 + steep * rest.sign())
        return torch.where(wrong <= 2 * true, true - wrong, safe) - 1e-30


@dataclass(frozen=True, eq=False)
class _Rounded:
    """Weights in bf16, and what is added to their products; lost: see `_lost`."""

    weight: Tensor
    lost: Tensor
    offset: Tensor | None = None

    @classmethod
    def of(cls, weight: Tensor, offset: Tensor | None = None) -> "_Rounded":
        """Of (latents, width) weights and a (latents,) offset."""
        rounded = weight.bfloat16()
        lost = torch.stack([_lost(part, rounded[i : i + len(part)]) for i, part in _blocks(weight)]).amax(0)
        return cls(rounded, lost, offset)

    def products(self, rows: Tensor, out: Tensor) -> tuple[Tensor, Tensor]:
        """(rows, latents) rounded products, in `out`, and (rows,) what they miss beside their own rounding."""
        missed = _missed(rows, self.lost)
        if self.offset is None:
            return torch.mm(rows.bfloat16(), self.weight.T, out=out), missed
        torch.addmm(self.offset.bfloat16(), rows.bfloat16(), self.weight.T, out=out)
        return out, missed + 2 * HALF * float(self.offset.abs().max())


def select(centred: Tensor, weight: Tensor, bias: Tensor, rule: Rule, two_sided: bool) -> Chosen | None:
    """As `choose.Select`; None where groups do not divide the latents or are fewer than k, for boosts that bf16 is too
    coarse for, and where a row has no k scores that are numbers, as after a training that diverged."""
    n_latents = len(weight)
    if n_latents % GROUP or n_latents // GROUP < rule.k:
        return None
    shift = None if rule.shift is None else rule.shift.float()
    found = _nominees(centred, _Rounded.of(weight, bias if shift is None else bias - shift), rule, two_sided)
    if found is None:
        return None
    rows, latents = found
    support = Support(rows, latents, len(centred), n_latents)
    u = sparse.TORCH.products(centred, weight, support) + bias[latents]
    scores = u if shift is None else u - shift[latents]
    scores, sides = scores.abs() if two_sided else scores, {}
    if rule.boost is not None:
        boost = sparse.TORCH.products(rule.boost.states, rule.boost.weight, support).abs_()
        scores, sides = torch.addcmul(scores, scores, boost), {rule.boost.head: boost}
    if not rule.k:
        return Chosen(support, u, sides).kept(scores > rule.floor)
    places = _best(support, scores, rule.k)
    if places is None:
        return None
    best = places.view(-1)
    sides = {name: side[best] for name, side in sides.items()}
    return Chosen(Support.from_indices(latents[places], n_latents), u[best], sides)


def _nominees(centred: Tensor, weight: _Rounded, rule: Rule, two_sided: bool) -> tuple[Tensor, Tensor] | None:
    """Rows and latents that may be chosen."""
    outs = torch.empty(1 if rule.boost is None else 2, BLOCK, len(weight.weight), dtype=torch.bfloat16)
    other = None if rule.boost is None else _Rounded.of(rule.boost.weight)
    rows, latents = [], []
    for start, part in _blocks(centred):
        scores, missed = weight.products(part, outs[0, : len(part)])
        scores, bound = scores.abs_() if two_sided else scores, _Bound(missed)
        if rule.boost is not None and other is not None:
            boosts, wrong = other.products(rule.boost.states[start : start + len(part)], outs[1, : len(part)])
            most = 1 + boosts.abs_().amax(1).float() * (1 + 2 * HALF) + wrong
            # HALF covers two roundings, of a sum and its offset; others are those of v, of 1 + v and of the score
            bound = _Bound(missed, 1.05 * wrong, most, 3 * HALF)
            if float(wrong.max()) > COARSE:
                return None
            scores = torch.addcmul(scores, scores, boosts, out=boosts)
        found = _above(scores, bound, rule)
        rows.append(found[0] + start)
        latents.append(found[1])
    return torch.cat(rows), torch.cat(latents)


def _above(scores: Tensor, bound: _Bound, rule: Rule) -> tuple[Tensor, Tensor]:
    """Places of (rows, latents) rounded scores that may belong to what the rule says."""
    grouped = scores.view(len(scores), GROUP, -1)
    best = grouped.amax(1).float()
    if rule.k:
        level = best.topk(rule.k, dim=1, sorted=False).values.amin(1)
        level = level - bound.at(level)  # so many true scores are not below
    else:
        level = torch.full_like(bound.e, rule.floor)
    limit = bound.limit(level).unsqueeze(1)
    rows, groups = (best >= limit).nonzero(as_tuple=True)
    which, inside = (grouped[rows, :, groups].float() >= limit[rows]).nonzero(as_tuple=True)
    return rows[which], inside * grouped.shape[2] + groups[which]


def _missed(rows: Tensor, lost: Tensor) -> Tensor:
    """(rows,) bound on what the rounded products of states with any latent miss; lost: see `_lost`."""
    rounded = rows.bfloat16().float()
    length, error = rounded.norm(dim=1), (rows - rounded).norm(dim=1)
    summing = 2.0 * (rows.shape[1] + 4) * 2.0**-24
    return 1.02 * (error * lost[0] + length * (lost[1] + summing * lost[0]))


def _lost(rows: Tensor, rounded: Tensor) -> Tensor:
    """(2,) the largest length of some weight rows, and the largest of what rounding took from them."""
    error = (rows - rounded.float()).norm(dim=1).amax()
    return torch.stack([rows.norm(dim=1).amax(), error])


def _best(support: Support, scores: Tensor, k: int) -> Tensor | None:
    """(rows, k) positions in the list of the k best-scored places of each row; None if a row has fewer."""
    starts, n = support.row_starts, len(scores)
    counts = torch.diff(starts, append=starts.new_tensor([n]))
    if int(counts.min()) < k:
        return None
    slots = torch.arange(n) - starts[support.rows]
    padded = scores.new_full((support.n_rows, int(counts.max())), -torch.inf)
    padded[support.rows, slots] = scores
    return padded.topk(k, dim=1, sorted=False).indices + starts.unsqueeze(1)


def _blocks(matrix: Tensor) -> list[tuple[int, Tensor]]:
    return list(zip(range(0, len(matrix), BLOCK), matrix.split(BLOCK), strict=True))
