"""Selection on a GPU: the encoder's product on its tensor cores, then one pass over the scores of a block of rows.

    1  products of the rows as 16-bit numbers (`halves.py`), added in float32: as exact as TF32
    2  a level that at least k scores of a row reach, from every fourth block of latents; all places whose scores reach
       it go to the row's list, which is four times k long in the mean
    3  the k best of the list; of equal scores those of the first latents
Where torch may not round operands of products (`torch.set_float32_matmul_precision` highest, its default), a score is
known up to 2^-10 ||x|| ||w||, and the list has all places that may be among the k best; these few are scored once more,
in float32, and ranked by that. The choice is then that of float32, but for rows in which more than k / 2 + 64 places
beside the k best are in doubt.

A list that is too short, as where many scores are equal, is done without: the row's k-th score is then found bit by
bit. No host waits for the device. With a floor instead of k, the list has all that exceeds it.

Import this module only where Triton is installed.
"""

from typing import Any, no_type_check

import torch
import triton
import triton.language as tl
from torch import Tensor
from torch.utils.weak import WeakTensorKeyDictionary

from overtone.dictionaries.choice import Chosen
from overtone.dictionaries.codes import Support, positions
from overtone.dictionaries.kernels import triton_int8
from overtone.dictionaries.kernels.halves import Halves, allowed, halves_of
from overtone.dictionaries.kernels.kept import KEPT
from overtone.dictionaries.kernels.launch import on
from overtone.dictionaries.kernels.nominees import Rest
from overtone.dictionaries.selectors.base import Rule

BLOCK = 2**28  # scores at a time
LARGE = 2**42  # products of numbers from which int8 is worth its second look, for which a host waits
SIDE, NARROW = 2048, 512  # latents that a program takes at a time
SAMPLED = 4  # of so many blocks of latents one gives the level
BITS = 16  # of the level that are found out
LIST, LONGER = 8, 16  # times k places has a row's list, and where scores are not sure
LEAST, MOST = 128, 4096  # places of it
FLOORED = 1024  # places of it where there is a floor
AGAIN = 64  # places more than 1.5 k that may be scored once more
PLACES, WIDTH = 8, 128  # places and columns that a program scores at a time
WRONG = 1.05 * 2.0**-10  # of a product of lengths: what rounding both to 11 bits takes at most, with float32 sums
NONE = 2**31 - 1  # latent of an empty place


_RESTS: WeakTensorKeyDictionary = WeakTensorKeyDictionary()  # of int8, by the weight


def select(centred: Tensor, weight: Tensor, bias: Tensor, rule: Rule, two_sided: bool) -> Chosen | None:
    """As `choose.Select`; None where k is large, where a floor leaves many, and where torch cannot multiply 16-bit
    numbers into float32, as before 2.8."""
    n_latents, k = len(weight), rule.k
    room = max(LEAST, triton.next_power_of_2((LIST if allowed() else LONGER) * k)) if k else FLOORED
    if not len(centred) or room > MOST or k > min(SIDE // 4, n_latents) or "dtype" not in torch.ops.aten.mm.overloads():
        return None
    if _int8_serves(centred, weight, rule):
        found = _from_int8(_Int8(centred, weight, bias, rule, two_sided))
        if found is not None:
            return found
    latents, u, v, kept = _in_blocks(_Operands(centred, weight, bias, rule, two_sided), room)
    sides = {} if rule.boost is None else {rule.boost.head: v.view(-1)}
    if k:
        return Chosen(Support.from_indices(latents, n_latents), u.view(-1), sides)
    if int(kept.max()) > room:
        return None
    which = positions((latents != NONE).view(-1))
    support = Support(which // room, latents.view(-1).index_select(0, which), len(latents), n_latents)
    taken = {name: side.index_select(0, which) for name, side in sides.items()}
    return Chosen(support, u.view(-1).index_select(0, which), taken)


def _int8_serves(centred: Tensor, weight: Tensor, rule: Rule) -> bool:
    """Whether int8 may nominate: for large products, of which there is one, where it did not disappoint lately."""
    (rows, width), n_latents = centred.shape, len(weight)
    if not rule.k or rule.boost is not None or rows * n_latents * width < LARGE or LIST * rule.k > MOST:
        return False
    if width % triton_int8.EVEN or n_latents % triton_int8.EVEN or not triton_int8.is_fast(weight.device):
        return False
    rest = _RESTS.get(weight)
    return rest is None or not rest.due()


def _from_int8(ours: "_Int8") -> Chosen | None:
    """The choice with int8 nominees; None where these leave too much in doubt. It waits until the device knows that,
    while this has other work."""
    latents, u, *_ = _in_blocks(ours, max(LEAST, triton.next_power_of_2(LIST * ours.rule.k)))
    failed = ours.failed()
    rest = _RESTS.get(ours.weight)
    if rest is None:
        rest = _RESTS[ours.weight] = Rest()
    rest.weigh(failed)
    if failed:  # another time with other factors
        KEPT.pop((triton_int8.Weights, ours.weight.data_ptr()), None)
        return None
    return Chosen(Support.from_indices(latents, len(ours.weight)), u.view(-1), {})


class _Operands:
    """States and weights of a product, or of two, in 16 bits; what is added to pre-activations, and to scores."""

    few, share, block = False, WRONG, BLOCK

    def __init__(self, centred: Tensor, weight: Tensor, bias: Tensor, rule: Rule, two_sided: bool) -> None:
        self.centred, self.weight, self.bias, self.rule, self.two_sided = centred, weight, bias, rule, two_sided
        self.added = bias if rule.shift is None else bias - rule.shift.float()
        self.sure = self.few or not allowed()
        self.round()

    def round(self) -> None:
        """Make the operands."""
        boost = self.rule.boost
        self.of_u = halves_of(self.centred), halves_of(self.weight)
        self.of_v = self.of_u if boost is None else (halves_of(boost.states), halves_of(boost.weight))

    def places(self, room: int) -> int:
        """How many places of a row may be among the k best, or what there is room for."""
        k = self.rule.k
        return min(room, k + k // 2 + AGAIN) if k and self.sure else k or room

    def products(self, rows: slice) -> tuple[Tensor, Tensor]:
        """(rows, latents) products of the rounded numbers; twice the same where there is one."""
        u = _product(*self.of_u, rows)
        return u, u if self.rule.boost is None else _product(*self.of_v, rows)

    def vectors(self, rows: slice) -> tuple[Tensor, ...]:
        """Scales of rows and weights of both products, and lengths of these."""
        sides = [part for pair in (self.of_u, self.of_v) for part in pair]
        scales = [part.scales[rows] if i % 2 == 0 else part.scales for i, part in enumerate(sides)]
        lengths = [part.lengths[rows] if i % 2 == 0 else part.lengths for i, part in enumerate(sides)]
        return *scales, *lengths

    def judge(self, doubtful: Tensor, places: int) -> None:
        """16 bits do with what there is."""

    def collect(self, scores: tuple[Any, ...], kind: dict[str, Any], n_rows: int, room: int) -> None:
        """Fill the lists of rows, of whose products the scores were made last."""
        _collect_kernel[(n_rows,)](  # pyright: ignore[reportIndexIssue]
            *scores, self.rule.floor, **kind, SAMPLED=SAMPLED, BITS=BITS, EVEN=len(self.weight) % SIDE == 0, SIDE=SIDE,
            num_warps=8,
        )  # fmt: skip


class _Int8(_Operands):
    """The same in int8: scores are as they are, and may be wrong by the root of (length of a state x step of a weight,
    length of a weight x step of a state)."""

    few, share, block = True, triton_int8.SHARE, 2 * BLOCK  # in half as many bytes

    def round(self) -> None:
        """As in `_Operands`."""
        self.weights = triton_int8.weights_of(self.weight, self.centred)
        self.states = triton_int8.bytes_of(self.centred, self.weights.frame, 0)
        self.flags: list[Tensor] = []
        self.known = torch.cuda.Event() if self.weight.device.type == "cuda" else None

    def places(self, room: int) -> int:
        """As in `_Operands`."""
        return min(room, 3 * self.rule.k + AGAIN)

    def products(self, rows: slice) -> tuple[Tensor, Tensor]:
        """As in `_Operands`."""
        self.scores = triton_int8.scores(self.states, self.weights.bytes, self.added, self.two_sided, rows)
        return self.scores.u, self.scores.u

    def vectors(self, rows: slice) -> tuple[Tensor, ...]:
        """As in `_Operands`."""
        states, weights = self.states, self.weights.bytes
        of_states, of_weights = states.lengths[rows] * self.share, weights.steps
        return (of_states, of_weights) * 2 + (states.steps[rows], weights.lengths) * 2

    def collect(self, scores: tuple[Any, ...], kind: dict[str, Any], n_rows: int, room: int) -> None:
        """As in `_Operands`: first of groups, then of their latents."""
        upper, lower = self.scores.upper, self.scores.lower
        levels = torch.empty(n_rows, dtype=torch.float32, device=upper.device)
        groups, counts = _lists(n_rows, room, upper.device)
        _groups_kernel[(n_rows,)](  # pyright: ignore[reportIndexIssue]
            groups, counts, levels, upper, lower, upper.shape[1], K=self.rule.k, ROOM=room, BITS=BITS, SIDE=SIDE,
            num_warps=8,
        )  # fmt: skip
        of_each = triton_int8.LATENTS // triton_int8.APART
        _expand_kernel[(n_rows,)](  # pyright: ignore[reportIndexIssue]
            *scores, groups, counts, levels, ROOM=room, TWO_SIDED=self.two_sided, GROUPS=NARROW // of_each,
            EACH=of_each, APART=triton_int8.APART, num_warps=2,
        )  # fmt: skip

    def judge(self, doubtful: Tensor, places: int) -> None:
        """Whether too many places of a row are in doubt, or too few are places at all, is on its way to the host."""
        flag = ((doubtful > places) | (doubtful < self.rule.k)).any()
        self.flags.append(flag.to("cpu", non_blocking=True))
        if self.known is not None:
            self.known.record()

    def failed(self) -> bool:
        """What was judged; what was asked of the device since then need not be done."""
        if self.known is not None:
            self.known.synchronize()
        return any(map(bool, self.flags))


def _lists(n_rows: int, room: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """(rows, places) int32, and (rows,) how many of them are in use: none yet."""
    columns = torch.empty(n_rows, room, dtype=torch.int32, device=device)
    return columns, torch.zeros(n_rows, dtype=torch.int32, device=device)


def _product(states: Halves, weight: Halves, rows: slice) -> Tensor:
    left, right = states.numbers[rows], weight.numbers.T
    if left.device.type == "cpu":  # Triton's interpreter
        return left.float() @ right.float()
    return torch.mm(left, right, out_dtype=torch.float32)


def _in_blocks(ours: _Operands, room: int) -> tuple[Tensor, ...]:
    """What `_chosen` finds of all rows."""
    size, n_rows = max(1, ours.block // len(ours.weight)), len(ours.centred)
    parts = [_chosen(ours, slice(start, start + size), room) for start in range(0, n_rows, size)]
    return tuple(torch.cat(some) if len(parts) > 1 else some[0] for some in zip(*parts, strict=True))


def _chosen(ours: _Operands, rows: slice, room: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """(rows, places) latents in order, pre-activations and boosts, and (rows,) how many are on the list, or in doubt
    where scores are not sure."""
    u, v = ours.products(rows)
    (n_rows, n_latents), k, boosted = u.shape, ours.rule.k, ours.rule.boost is not None
    places, device = ours.places(room), u.device
    columns, counts = _lists(n_rows, room, device)
    latents = torch.empty(n_rows, places, dtype=torch.int64, device=device)
    of_u, of_v = (torch.empty(n_rows, n, dtype=torch.float32, device=device) for n in (places, places * boosted))
    scores = columns, counts, u, v, *ours.vectors(rows), ours.added, n_latents, ours.share
    kind: dict[str, Any] = {
        "K": k, "ROOM": room, "TWO_SIDED": ours.two_sided, "BOOSTED": boosted, "SURE": ours.sure
    }  # fmt: skip
    with on(device):
        ours.collect(scores, kind, n_rows, room)
        _rank_kernel[(n_rows,)](  # pyright: ignore[reportIndexIssue]
            latents, of_u, of_v, *scores, ours.bias, **kind, FEW=ours.few, PLACES=places, NONE=NONE, SIDE=NARROW,
            num_warps=2,
        )  # fmt: skip
    del u, v
    ours.judge(counts, places)
    if ours.sure:
        latents, of_u, of_v = _scored_again(ours, rows, latents, of_u, of_v, counts)
    return latents, of_u, of_v, counts


def _scored_again(
    ours: _Operands, rows: slice, latents: Tensor, of_u: Tensor, of_v: Tensor, counts: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Places with what float32 makes of them, or 16 bits where these are allowed; with k the k best of each row."""
    rule, none = ours.rule, latents == NONE
    of_u = _products(ours.centred[rows], ours.weight, latents, counts)
    near = latents.masked_fill(none, 0)
    scores = of_u + ours.added[near]
    of_u += ours.bias[near]
    if ours.two_sided:
        scores = scores.abs()
    if rule.boost is not None:
        of_v = _products(rule.boost.states[rows], rule.boost.weight, latents, counts).abs_()
        scores = torch.addcmul(scores, scores, of_v)
    if not rule.k:
        return latents.masked_fill(scores <= rule.floor, NONE), of_u, of_v
    return _settled(scores.masked_fill_(none, -torch.inf), latents, of_u, of_v, rule.k)


def _products(states: Tensor, weight: Tensor, latents: Tensor, counts: Tensor) -> Tensor:
    """(rows, places) inner products of each row's state with the weights of its latents, of which it has so many."""
    (n_rows, places), width = latents.shape, weight.shape[1]
    source, scales = (halves_of(weight).numbers, halves_of(weight).scales) if allowed() else (weight, weight)
    side = min(WIDTH, triton.next_power_of_2(width))
    found = torch.empty(triton.cdiv(width, side), n_rows, places, dtype=torch.float32, device=weight.device)
    with on(weight.device):
        _products_kernel[(n_rows, len(found))](  # pyright: ignore[reportIndexIssue]
            found, states, source, scales, latents, counts, n_rows, places, width,
            SCALED=allowed(), NONE=NONE, PLACES=PLACES, SIDE=side, num_warps=1,
        )  # fmt: skip
    return found.sum(0)


def _settled(scores: Tensor, latents: Tensor, of_u: Tensor, of_v: Tensor, k: int) -> tuple[Tensor, Tensor, Tensor]:
    """The (rows, k) best places of (rows, places), which stay in order."""
    n_rows, places = scores.shape
    best = torch.zeros(n_rows, k, dtype=torch.int64, device=scores.device)
    with on(scores.device):
        _settle_kernel[(n_rows,)](  # pyright: ignore[reportIndexIssue]
            best, scores, places, K=k, SIDE=triton.next_power_of_2(places), num_warps=1
        )
    return latents.gather(1, best), of_u.gather(1, best), of_v.gather(1, best) if of_v.shape[1] else of_v


@triton.jit
@no_type_check
def _settle_kernel(best, scores, places, K: tl.constexpr, SIDE: tl.constexpr):
    """One program: one row."""
    row, slot = tl.program_id(0).to(tl.int64), tl.arange(0, SIDE)
    score = tl.load(scores + row * places + slot, mask=slot < places, other=float("-inf"))
    wins = _best(tl.where(score == score, score, float("inf")), slot, K)  # what is no number is passed on
    tl.store(best + row * K + tl.cumsum(wins.to(tl.int32), axis=0) - 1, slot.to(tl.int64), mask=wins)


@triton.jit
@no_type_check
def _products_kernel(
    found, states, weight, scales, latents, counts, n_rows, n, width,
    SCALED: tl.constexpr, NONE: tl.constexpr, PLACES: tl.constexpr, SIDE: tl.constexpr,
):  # fmt: skip
    """One program: one row, SIDE columns."""
    row, side = tl.program_id(0).to(tl.int64), tl.program_id(1)
    column = side * SIDE + tl.arange(0, SIDE)
    inside = column < width
    x = tl.load(states + row * width + column, mask=inside, other=0.0)
    found += (side.to(tl.int64) * n_rows + row) * n
    last = tl.minimum(tl.load(counts + row), n)
    for first in range(0, last, PLACES):
        place = first + tl.arange(0, PLACES)
        latent = tl.load(latents + row * n + place, mask=place < last, other=NONE)
        there = latent != NONE
        w = tl.load(
            weight + latent[:, None] * width + column[None, :], mask=there[:, None] & inside[None, :], other=0.0
        )
        product = tl.sum(w.to(tl.float32) * x[None, :], axis=1)
        if SCALED:
            product *= tl.load(scales + latent, mask=there, other=0.0)
        tl.store(found + place, product, mask=place < last)


@triton.jit
@no_type_check
def _scores(
    u, v, column, inside, of_row, of_row_v, length, length_v, scales_w, scales_d, lengths_w, lengths_d, added,
    TWO_SIDED: tl.constexpr, BOOSTED: tl.constexpr, SURE: tl.constexpr, FEW: tl.constexpr,
):  # fmt: skip
    """Scores of a row at some columns, and by how much they may be wrong. FEW: in int8."""
    score = tl.load(u + column, mask=inside, other=0.0).to(tl.float32)
    scale, wrong = tl.load(scales_w + column, mask=inside, other=0.0), 0.0
    if SURE:
        wrong = length * tl.load(lengths_w + column, mask=inside, other=0.0)
    if FEW:
        also = of_row * scale
        wrong = tl.sqrt(wrong * wrong + also * also) + tl.abs(score) * 0.00395  # triton_int8.GRAIN
    else:
        score *= of_row * scale
    score += tl.load(added + column, mask=inside, other=0.0)
    if TWO_SIDED:
        score = tl.abs(score)
    if BOOSTED:
        boost = tl.load(v + column, mask=inside, other=0.0) * tl.load(scales_d + column, mask=inside, other=0.0)
        boost = tl.abs(of_row_v * boost)
        if SURE:
            wrong_v = length_v * tl.load(lengths_d + column, mask=inside, other=0.0)
            wrong = wrong * (1 + boost) + (tl.abs(score) + wrong) * wrong_v
        score += score * boost
    return score, wrong


@triton.jit
@no_type_check
def _number(ordered):
    """The float32 number at a place in the order of all of them, from 0 to 2^32 - 1."""
    bits = (ordered - 2147483648).to(tl.int32)
    return (bits ^ ((bits >> 31) & 0x7FFFFFFF)).to(tl.float32, bitcast=True)


@triton.jit
@no_type_check
def _kth(numbers, K: tl.constexpr, BITS: tl.constexpr):
    """The K-th largest number, or what its first BITS bits are of."""
    found = tl.full((), 0, tl.int64)
    for i in range(0, BITS):
        trial = found + (tl.full((), 1, tl.int64) << (31 - i))
        found = tl.where(tl.sum((numbers >= _number(trial)).to(tl.int32), axis=0) >= K, trial, found)
    level = _number(found)
    return tl.where(level == level, level, float("-inf"))


@triton.jit
@no_type_check
def _best(scores, columns, K: tl.constexpr):
    """Where the K best scores are, none of which is -inf; of equal ones the first columns."""
    level = _kth(scores, K, 32)
    above, equal = scores > level, (scores == level) & (scores > float("-inf"))
    wanted = K - tl.sum(above.to(tl.int32), axis=0)
    last = tl.full((), 2147483647, tl.int32)
    if tl.sum(equal.to(tl.int32), axis=0) > wanted:
        found = tl.full((), 0, tl.int32)
        for i in range(0, 31):
            trial = found + (tl.full((), 1, tl.int32) << (30 - i))
            found = tl.where(tl.sum((equal & (columns < trial)).to(tl.int32), axis=0) < wanted, trial, found)
        last = found
    return above | (equal & (columns <= last))


@triton.jit
@no_type_check
def _collect_kernel(
    columns, counts, u, v, scales, scales_w, scales_a, scales_d, lengths, lengths_w, lengths_a, lengths_d,
    added, n_latents, share, floor, K: tl.constexpr, ROOM: tl.constexpr, TWO_SIDED: tl.constexpr,
    BOOSTED: tl.constexpr, SURE: tl.constexpr, SAMPLED: tl.constexpr, BITS: tl.constexpr, EVEN: tl.constexpr,
    SIDE: tl.constexpr,
):  # fmt: skip
    """One program: one row. Columns on its list come in any order. Each thread has every so many-eth column: were they
    neighbours, to be read at once, they would have to change hands before they are counted."""
    row, lane = tl.program_id(0), tl.max_contiguous(tl.arange(0, SIDE), 1)
    wide = row.to(tl.int64)
    u += wide * n_latents
    v += wide * n_latents
    columns += wide * ROOM
    of_row, of_row_v = tl.load(scales + row), tl.load(scales_a + row)
    length, length_v = share * tl.load(lengths + row), share * tl.load(lengths_a + row)
    level = floor
    if K:
        best = tl.full((SIDE,), float("-inf"), tl.float32)
        for first in range(0, n_latents, SAMPLED * SIDE):
            column = first + lane
            inside = (lane >= 0) if EVEN else (column < n_latents)
            score, wrong = _scores(
                u, v, column, inside, of_row, of_row_v, length, length_v, scales_w, scales_d, lengths_w, lengths_d,
                added, TWO_SIDED, BOOSTED, SURE, False,
            )  # fmt: skip
            if SURE:
                score -= wrong
            best = tl.maximum(best, tl.where(inside, score, float("-inf")))
        level = _kth(best, K, BITS)
    counter = counts + row + tl.zeros((SIDE,), tl.int32)
    for first in range(0, n_latents, SIDE):
        column = first + lane
        inside = (lane >= 0) if EVEN else (column < n_latents)
        score, wrong = _scores(
            u, v, column, inside, of_row, of_row_v, length, length_v, scales_w, scales_d, lengths_w, lengths_d, added,
            TWO_SIDED, BOOSTED, SURE, False,
        )  # fmt: skip
        if SURE:
            score += wrong
        good = (score >= level) if K else (score > level)
        good = good & inside
        place = tl.atomic_add(counter, 1, mask=good, sem="relaxed")
        tl.store(columns + place, column, mask=good & (place < ROOM))


@triton.jit
@no_type_check
def _groups_kernel(
    groups, counts, levels, upper, lower, n_groups,
    K: tl.constexpr, ROOM: tl.constexpr, BITS: tl.constexpr, SIDE: tl.constexpr,
):  # fmt: skip
    """One program: one row. A level that K scores reach, and the groups of which some score may."""
    row, lane = tl.program_id(0), tl.max_contiguous(tl.arange(0, SIDE), 1)
    upper += row.to(tl.int64) * n_groups
    lower += row.to(tl.int64) * n_groups
    best = tl.full((SIDE,), float("-inf"), tl.float32)
    for first in range(0, n_groups, SIDE):
        group = first + lane
        best = tl.maximum(best, tl.load(lower + group, mask=group < n_groups, other=float("-inf")).to(tl.float32))
    level = _kth(best, K, BITS)
    tl.store(levels + row, level)
    counter = counts + row + tl.zeros((SIDE,), tl.int32)
    for first in range(0, n_groups, SIDE):
        group = first + lane
        inside = group < n_groups
        good = inside & (tl.load(upper + group, mask=inside, other=float("-inf")).to(tl.float32) >= level)
        place = tl.atomic_add(counter, 1, mask=good, sem="relaxed")
        tl.store(groups + row.to(tl.int64) * ROOM + place, group, mask=good & (place < ROOM))


@triton.jit
@no_type_check
def _expand_kernel(
    columns, counts, u, v, scales, scales_w, scales_a, scales_d, lengths, lengths_w, lengths_a, lengths_d,
    added, n_latents, share, groups, of_groups, levels,
    ROOM: tl.constexpr, TWO_SIDED: tl.constexpr, GROUPS: tl.constexpr, EACH: tl.constexpr, APART: tl.constexpr,
):  # fmt: skip
    """One program: one row. The latents of its groups whose scores may reach its level; with too many groups as many as
    do not fit on the list."""
    row, slot = tl.program_id(0), tl.arange(0, GROUPS * EACH)
    wide = row.to(tl.int64)
    u += wide * n_latents
    listed, level = tl.load(of_groups + row), tl.load(levels + row)
    of_row, length = tl.load(scales + row), share * tl.load(lengths + row)
    counter = counts + row + tl.zeros((GROUPS * EACH,), tl.int32)
    if listed > ROOM:
        tl.store(counts + row, ROOM + 1)
    else:
        for first in range(0, listed, GROUPS):
            place = first + slot // EACH
            group = tl.load(groups + wide * ROOM + place, mask=place < listed, other=0)
            column = group // APART * (APART * EACH) + group % APART + slot % EACH * APART
            inside = (place < listed) & (column < n_latents)
            score, wrong = _scores(
                u, u, column, inside, of_row, of_row, length, length, scales_w, scales_w, lengths_w, lengths_w, added,
                TWO_SIDED, False, True, True,
            )  # fmt: skip
            good = inside & (score + wrong >= level)
            where = tl.atomic_add(counter, 1, mask=good, sem="relaxed")
            tl.store(columns + wide * ROOM + where, column, mask=good & (where < ROOM))


@triton.jit
@no_type_check
def _rank_kernel(
    chosen, of_u, of_v, columns, counts, u, v, scales, scales_w, scales_a, scales_d, lengths, lengths_w,
    lengths_a, lengths_d, added, n_latents, share, bias, K: tl.constexpr, ROOM: tl.constexpr, TWO_SIDED: tl.constexpr,
    BOOSTED: tl.constexpr, SURE: tl.constexpr, FEW: tl.constexpr, PLACES: tl.constexpr, NONE: tl.constexpr,
    SIDE: tl.constexpr,
):  # fmt: skip
    """One program: one row. With K its best places, or all that may be among these, else all, in order of latents.
    Where scores are not sure, `counts` is then how many these are."""
    row, slot = tl.program_id(0), tl.arange(0, ROOM)
    of_row, of_row_v = tl.load(scales + row), tl.load(scales_a + row)
    listed = tl.load(counts + row)
    wide = row.to(tl.int64)
    chosen += wide * PLACES
    of_u += wide * PLACES
    of_v += wide * PLACES
    u += wide * n_latents
    v += wide * n_latents
    if (K > 0) & (listed > ROOM):
        filled = 0 if FEW else K
        tl.store(chosen + slot, tl.full((ROOM,), NONE, tl.int64), mask=(slot >= filled) & (slot < PLACES))
        if not FEW:
            _search(
                chosen, of_u, of_v, u, v, of_row, of_row_v, scales_w, scales_d, lengths_w, lengths_d, added, n_latents,
                bias, K, TWO_SIDED, BOOSTED, SIDE,
            )  # fmt: skip
            if SURE:
                tl.store(counts + row, K)
    else:
        there = slot < listed
        column = tl.load(columns + wide * ROOM + slot, mask=there, other=NONE)
        if K:
            length, length_v = share * tl.load(lengths + row), share * tl.load(lengths_a + row)
            score, wrong = _scores(
                u, v, column, there, of_row, of_row_v, length, length_v, scales_w, scales_d, lengths_w, lengths_d,
                added, TWO_SIDED, BOOSTED, SURE, FEW,
            )  # fmt: skip
            score = tl.where(there, score, float("-inf"))
            if SURE:
                surely = _kth(score - wrong, K, 32)
                score += wrong
                there = score >= surely
                doubtful = tl.sum(there.to(tl.int32), axis=0)
                tl.store(counts + row, doubtful if FEW else tl.maximum(doubtful, K))
                if doubtful > PLACES:
                    there = _best(score, column, PLACES)
            else:
                there = _best(score, column, K)
            column = tl.where(there, column, NONE)
        column = tl.sort(column)
        if K:  # fewer than k only where numbers are no numbers
            column = tl.where((column < NONE) | (slot >= K), column, tl.minimum(slot, n_latents - 1))
        inside = slot < PLACES
        if SURE:  # which is scored once more
            tl.store(chosen + slot, column.to(tl.int64), mask=inside)
        else:
            _put(
                chosen, of_u, of_v, slot, column, inside, inside & (column < NONE), u, v, of_row, of_row_v, scales_w,
                scales_d, bias, BOOSTED,
            )  # fmt: skip


@triton.jit
@no_type_check
def _search(
    chosen, of_u, of_v, u, v, of_row, of_row_v, scales_w, scales_d, lengths_w, lengths_d, added, n_latents, bias,
    K: tl.constexpr, TWO_SIDED: tl.constexpr, BOOSTED: tl.constexpr, SIDE: tl.constexpr,
):  # fmt: skip
    """Write the K best places of a row as `_rank_kernel` does, from all of its scores."""
    lane = tl.arange(0, SIDE)
    found = tl.full((), 0, tl.int64)
    for i in range(0, 32):  # the k-th score, bit by bit
        trial = found + (tl.full((), 1, tl.int64) << (31 - i))
        reach = _reaching(
            _number(trial), u, v, of_row, of_row_v, scales_w, scales_d, lengths_w, lengths_d, added, n_latents,
            TWO_SIDED, BOOSTED, SIDE,
        )  # fmt: skip
        found = tl.where(reach >= K, trial, found)
    level = _number(found)
    above = _reaching(
        _number(found + 1), u, v, of_row, of_row_v, scales_w, scales_d, lengths_w, lengths_d, added, n_latents,
        TWO_SIDED, BOOSTED, SIDE,
    )  # fmt: skip
    taken, equals = 0, 0
    for first in range(0, n_latents, SIDE):
        column = first + lane
        inside = column < n_latents
        score, wrong = _scores(
            u, v, column, inside, of_row, of_row_v, 0.0, 0.0, scales_w, scales_d, lengths_w, lengths_d, added,
            TWO_SIDED, BOOSTED, False, False,
        )  # fmt: skip
        equal = (inside & (score == level)).to(tl.int32)
        wins = inside & ((score > level) | ((equal > 0) & (equals + tl.cumsum(equal, axis=0) <= K - above)))
        one = wins.to(tl.int32)
        place = taken + tl.cumsum(one, axis=0) - 1
        _put(chosen, of_u, of_v, place, column, wins, wins, u, v, of_row, of_row_v, scales_w, scales_d, bias, BOOSTED)
        taken += tl.sum(one, axis=0)
        equals += tl.sum(equal, axis=0)


@triton.jit
@no_type_check
def _reaching(
    least, u, v, of_row, of_row_v, scales_w, scales_d, lengths_w, lengths_d, added, n_latents,
    TWO_SIDED: tl.constexpr, BOOSTED: tl.constexpr, SIDE: tl.constexpr,
):  # fmt: skip
    """How many of all scores of a row are not less than a number."""
    count = 0
    for first in range(0, n_latents, SIDE):
        column = first + tl.arange(0, SIDE)
        inside = column < n_latents
        score, wrong = _scores(
            u, v, column, inside, of_row, of_row_v, 0.0, 0.0, scales_w, scales_d, lengths_w, lengths_d, added,
            TWO_SIDED, BOOSTED, False, False,
        )  # fmt: skip
        count += tl.sum((inside & (score >= least)).to(tl.int32), axis=0)
    return count


@triton.jit
@no_type_check
def _put(
    chosen, of_u, of_v, place, column, inside, there, u, v, of_row, of_row_v, scales_w, scales_d, bias,
    BOOSTED: tl.constexpr,
):  # fmt: skip
    """Write columns to their places, with the pre-activations and boosts of those that are there."""
    number = tl.load(u + column, mask=there, other=0.0) * (of_row * tl.load(scales_w + column, mask=there, other=0.0))
    tl.store(chosen + place, column.to(tl.int64), mask=inside)
    tl.store(of_u + place, number + tl.load(bias + column, mask=there, other=0.0), mask=inside)
    if BOOSTED:
        scale = of_row_v * tl.load(scales_d + column, mask=there, other=0.0)
        tl.store(of_v + place, tl.abs(tl.load(v + column, mask=there, other=0.0) * scale), mask=inside)
