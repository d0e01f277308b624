"""Selection in plain torch in two stages, exact, for processors that multiply bf16 numbers fast.

    1  scores in bf16, block of rows by block of rows: the only (rows, latents) matrix, one block of it at a time.
       |<x,w> - <x',w'>| <= |x - x'| |w| + |x'| |w - w'| + rounding, x', w' the rounded vectors, bounds the error.
       Nominees of a row: all that may belong to it within the bound. For the k best, k groups of latents have maxima
       that reach some level, so no latent further below that level than twice the bound can be among them.
    2  nominees again in float32, from which the choice is made.
There is no list of fixed length that could be too short, so nothing is missed and no row needs a second pass.
"""

import torch
from torch import Tensor

from overtone.dictionaries.codes import Support
from overtone.dictionaries.selectors.base import Rule
from overtone.training.kernels import sparse

GROUP = 16  # latents in a group; large groups make maxima cheap, small ones make few nominees that are not chosen
BLOCK = 512  # rows; more of them leave the cache
HALF = 2.0**-8  # relative rounding error of bf16


def is_fast() -> bool:
    """Whether this processor has instructions for products of bf16 numbers."""
    known = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
    return any(getattr(torch.cpu, name, lambda: False)() for name in known)


def select(centred: Tensor, weight: Tensor, bias: Tensor, rule: Rule, two_sided: bool) -> tuple[Support, Tensor] | None:
    """As `choose.Select`; None where groups do not divide the latents or are fewer than k."""
    n_latents = len(weight)
    if n_latents % GROUP or n_latents // GROUP < rule.k:
        return None
    shift = None if rule.shift is None else rule.shift.float()
    rows, latents = _nominees(centred, weight, bias if shift is None else bias - shift, rule, two_sided)
    support = Support(rows, latents, len(centred), n_latents)
    u = sparse.TORCH.products(centred, weight, support) + bias[latents]
    scores = u if shift is None else u - shift[latents]
    scores = scores.abs() if two_sided else scores
    if not rule.k:
        keep = scores > rule.floor
        return support.kept(keep), u[keep]
    places = _best(support, scores, rule.k)
    return Support.from_indices(latents[places], n_latents), u[places.view(-1)]


def _nominees(centred: Tensor, weight: Tensor, bias: Tensor, rule: Rule, two_sided: bool) -> tuple[Tensor, Tensor]:
    """Rows and latents that may be chosen."""
    rounded, offset = weight.bfloat16(), bias.bfloat16()
    lost = torch.stack([_lost(part, rounded[i : i + len(part)]) for i, part in _blocks(weight)]).amax(0)
    of_bias = 2 * HALF * float(bias.abs().max())
    scores, rows, latents = torch.empty(BLOCK, len(weight), dtype=torch.bfloat16), [], []
    for start, part in _blocks(centred):
        block = torch.addmm(offset, part.bfloat16(), rounded.T, out=scores[: len(part)])
        block = block.abs_() if two_sided else block
        found = _above(block, _missed(part, lost) + of_bias, rule)
        rows.append(found[0] + start)
        latents.append(found[1])
    return torch.cat(rows), torch.cat(latents)


def _above(scores: Tensor, missed: Tensor, rule: Rule) -> tuple[Tensor, Tensor]:
    """Places of (rows, latents) rounded scores that may belong to what the rule says; missed: (rows,)."""
    grouped = scores.view(len(scores), GROUP, -1)
    best = grouped.amax(1).float()
    level = best.topk(rule.k, dim=1, sorted=False).values.amin(1) if rule.k else torch.full_like(missed, rule.floor)
    slack = (2 if rule.k else 1) * (missed + 1.01 * HALF * level.abs()) + 1e-30
    limit = (level - slack).unsqueeze(1)
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


def _best(support: Support, scores: Tensor, k: int) -> Tensor:
    """(rows, k) positions in the list of the k best-scored places of each row."""
    starts, n = support.row_starts, len(scores)
    counts = torch.diff(starts, append=starts.new_tensor([n]))
    slots = torch.arange(n) - starts[support.rows]
    padded = scores.new_full((support.n_rows, int(counts.max())), -torch.inf)
    padded[support.rows, slots] = scores
    return padded.topk(k, dim=1, sorted=False).indices + starts.unsqueeze(1)


def _blocks(matrix: Tensor) -> list[tuple[int, Tensor]]:
    return list(zip(range(0, len(matrix), BLOCK), matrix.split(BLOCK), strict=True))
