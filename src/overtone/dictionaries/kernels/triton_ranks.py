"""What a selection on a GPU launches; see `triton_select.py`.

Import this module only where Triton is installed.
"""

from typing import no_type_check

import triton
import triton.language as tl


@triton.jit
@no_type_check
def settle_kernel(
    latents, of_u, of_v, listed, u, v, scales_w, scales_d, added, bias, n_rows, n_places, sides, floor,
    K: tl.constexpr, TWO_SIDED: tl.constexpr, BOOSTED: tl.constexpr, SCALED: tl.constexpr, NONE: tl.constexpr,
    SIDE: tl.constexpr,
):  # fmt: skip
    """One program: one row. The K best of its listed places by their products, or all above the floor; u and v have a
    part of these for each side. They stay in order."""
    row, slot = tl.program_id(0).to(tl.int64), tl.arange(0, SIDE)
    latent = tl.load(listed + row * n_places + slot, mask=slot < n_places, other=NONE)
    there = latent != NONE
    product = _in_all(u + row * n_places + slot, scales_w + latent, there, n_rows * n_places, sides, SCALED)
    score = product + tl.load(added + latent, mask=there, other=0.0)
    if TWO_SIDED:
        score = tl.abs(score)
    if BOOSTED:
        boost = tl.abs(_in_all(v + row * n_places + slot, scales_d + latent, there, n_rows * n_places, sides, SCALED))
        score += score * boost
    score = tl.where(score == score, tl.maximum(score, -3.4e38), float("inf"))  # what is no number is passed on
    score = tl.where(there, score, float("-inf"))
    wins = _best(score, slot, K) if K else score > floor
    place = row * (K if K else n_places) + tl.cumsum(wins.to(tl.int32), axis=0) - 1
    tl.store(latents + place, latent, mask=wins)
    tl.store(of_u + place, product + tl.load(bias + latent, mask=wins, other=0.0), mask=wins)
    if BOOSTED:
        tl.store(of_v + place, boost, mask=wins)


@triton.jit
@no_type_check
def _in_all(parts, scales, there, stride, sides, SCALED: tl.constexpr):
    """Products of which there is a part for each side."""
    product = tl.load(parts, mask=there, other=0.0)
    for _ in range(1, sides):
        parts += stride
        product += tl.load(parts, mask=there, other=0.0)
    return product * tl.load(scales, mask=there, other=0.0) if SCALED else product


@triton.jit
@no_type_check
def products_kernel(
    found, states, weight, latents, counts, n_rows, n, width, NONE: tl.constexpr, PLACES: tl.constexpr,
    SIDE: tl.constexpr,
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
        there, start = latent != NONE, latent.to(tl.int64) * width  # which can exceed 32 bits
        w = tl.load(weight + start[:, None] + column[None, :], mask=there[:, None] & inside[None, :], other=0.0)
        tl.store(found + place, tl.sum(w.to(tl.float32) * x[None, :], axis=1), mask=place < last)


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
def collect_kernel(
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
def groups_kernel(
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
def expand_kernel(
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
def rank_kernel(
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
            tl.store(chosen + slot, column, mask=inside)
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
    """Write the K best places of a row as `rank_kernel` does, from all of its scores."""
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
