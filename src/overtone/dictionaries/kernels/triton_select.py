"""Selection on a GPU: the encoder's product on its tensor cores, then one pass over the scores of a block of rows.

    1  products of the rows as 16-bit numbers (`halves.py`), added in float32: as exact as TF32
    2  a level that at least k scores of a row reach, from every fourth block of latents; all places whose scores reach
       it go to the row's list, which is four times k long in the mean
    3  the k best of the list; of equal scores those of the first latents
Where torch may not round operands of products (`torch.set_float32_matmul_precision` highest, its default), a score is
known up to 2^-10 ||x|| ||w||, and the list has all places that may be among the k best; these few are scored once more,
in float32, and ranked by that. The choice is then that of float32, but for rows in which more than k / 2 + 64 places
beside the k best are in doubt, or whose list is too short.

A list that is too short, as where many scores are equal, is done without: the row's k-th score in 16 bits is then found
bit by bit. No host waits for the device. With a floor instead of k, the list has all that exceeds it.

Large products that are one and have a k are made of int8 numbers first (`triton_int8.py`), in half the time, where the
tensor cores have them: what may be among the k best by these, twice k as a rule, is scored once more, in 16
bits where these are allowed, else in float32. Where a row leaves more than 3 k + 64 places in doubt, as with many equal
scores, all is done in 16 bits instead, and int8 rests for a while.

Import this module only where Triton is installed.
"""

# pyright: reportIndexIssue=false, reportCallIssue=false

from typing import Any

import torch
import triton
from torch import Tensor
from torch.utils.weak import WeakTensorKeyDictionary

from overtone.core.asked import Asked
from overtone.dictionaries.choice import Chosen
from overtone.dictionaries.codes import Support, positions
from overtone.dictionaries.kernels import triton_int8
from overtone.dictionaries.kernels import triton_ranks as kernels
from overtone.dictionaries.kernels.halves import Halves, allowed, halves_of
from overtone.dictionaries.kernels.kept import KEPT
from overtone.dictionaries.kernels.launch import on
from overtone.dictionaries.kernels.nominees import Rest
from overtone.dictionaries.selectors.base import Rule

BLOCK = 2**28  # scores at a time
LARGE = 2**40  # products of numbers from which int8 is worth its second look, for which a host waits
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
_RESTS = WeakTensorKeyDictionary()  # of int8, by the weight


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
        kernels.collect_kernel[(n_rows,)](
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
        self.flags: list[Asked] = []

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
        kernels.groups_kernel[(n_rows,)](
            groups, counts, levels, upper, lower, upper.shape[1], K=self.rule.k, ROOM=room, BITS=BITS, SIDE=SIDE,
            num_warps=4,
        )  # fmt: skip
        of_each = triton_int8.LATENTS // triton_int8.APART
        kernels.expand_kernel[(n_rows,)](
            *scores, groups, counts, levels, ROOM=room, TWO_SIDED=self.two_sided, GROUPS=NARROW // of_each,
            EACH=of_each, APART=triton_int8.APART, num_warps=2,
        )  # fmt: skip

    def judge(self, doubtful: Tensor, places: int) -> None:
        """Whether too many places of a row are in doubt, or too few are places at all, is on its way to the host."""
        self.flags.append(Asked(((doubtful > places) | (doubtful < self.rule.k)).any()))

    def failed(self) -> bool:
        """What was judged; what was asked of the device since then need not be done."""
        return any(flag.answer() for flag in self.flags)


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
    """(rows, places) latents in order, pre-activations and boosts, and (rows,) how many are on the list, or in doubt
    where scores are not sure. All lists come first, so that a device has work while a host asks about them."""
    size, n_rows = max(1, ours.block // len(ours.weight)), len(ours.centred)
    blocks = [slice(start, start + size) for start in range(0, n_rows, size)]
    parts = [_listed(ours, rows, room) for rows in blocks]
    if ours.sure:
        parts = [_scored_again(ours, rows, *part) for rows, part in zip(blocks, parts, strict=True)]
    return tuple(torch.cat(some) if len(parts) > 1 else some[0] for some in zip(*parts, strict=True))


def _listed(ours: _Operands, rows: slice, room: int) -> tuple[Tensor, ...]:
    """The same of a block; where scores are not sure only latents and how many they are."""
    u, v = ours.products(rows)
    (n_rows, n_latents), k, boosted = u.shape, ours.rule.k, ours.rule.boost is not None
    places, device = ours.places(room), u.device
    columns, counts = _lists(n_rows, room, device)
    latents = torch.empty(n_rows, places, dtype=torch.int32 if ours.sure else torch.int64, device=device)
    of_u, of_v = (torch.empty(n_rows, n, dtype=torch.float32, device=device) for n in (places, places * boosted))
    scores = columns, counts, u, v, *ours.vectors(rows), ours.added, n_latents, ours.share
    kind: dict[str, Any] = {
        "K": k, "ROOM": room, "TWO_SIDED": ours.two_sided, "BOOSTED": boosted, "SURE": ours.sure
    }  # fmt: skip
    with on(device):
        ours.collect(scores, kind, n_rows, room)
        kernels.rank_kernel[(n_rows,)](
            latents, of_u, of_v, *scores, ours.bias, **kind, FEW=ours.few, PLACES=places, NONE=NONE, SIDE=NARROW,
            num_warps=1 if room <= NARROW else 2,
        )  # fmt: skip
    ours.judge(counts, places)
    return (latents, counts) if ours.sure else (latents, of_u, of_v, counts)


def _scored_again(ours: _Operands, rows: slice, listed: Tensor, counts: Tensor) -> tuple[Tensor, ...]:
    """Listed places with what float32 makes of them, or 16 bits where these are allowed; with k the k best of each row,
    which stay in order."""
    boost, (n_rows, places), boosted = ours.rule.boost, listed.shape, ours.rule.boost is not None
    u = v = _products(ours.centred[rows], ours.weight, listed, counts)
    scales = scales_v = _scales(ours.weight)
    if boost is not None:
        v, scales_v = _products(boost.states[rows], boost.weight, listed, counts), _scales(boost.weight)
    k, device = ours.rule.k or places, listed.device
    latents = torch.full((n_rows, k), NONE, dtype=torch.int64, device=device)
    of_u, of_v = (torch.empty(n_rows, n, dtype=torch.float32, device=device) for n in (k, k * boosted))
    with on(device):
        kernels.settle_kernel[(n_rows,)](
            latents, of_u, of_v, listed, u, v, scales, scales_v, ours.added, ours.bias, n_rows, places, len(u),
            ours.rule.floor, K=ours.rule.k, TWO_SIDED=ours.two_sided, BOOSTED=boosted, SCALED=allowed(), NONE=NONE,
            SIDE=triton.next_power_of_2(places), num_warps=1,
        )  # fmt: skip
    return latents, of_u, of_v, counts


def _products(states: Tensor, weight: Tensor, latents: Tensor, counts: Tensor) -> Tensor:
    """(sides, rows, places) parts of the inner products of each row's state with the weights of its latents, of which
    it has so many. They lack the weights' scales, where these have some."""
    (n_rows, places), width = latents.shape, weight.shape[1]
    source, side = halves_of(weight).numbers if allowed() else weight, min(WIDTH, triton.next_power_of_2(width))
    found = torch.empty(triton.cdiv(width, side), n_rows, places, dtype=torch.float32, device=weight.device)
    with on(weight.device):
        kernels.products_kernel[(n_rows, len(found))](
            found, states, source, latents, counts, n_rows, places, width, NONE=NONE, PLACES=PLACES, SIDE=side,
            num_warps=1,
        )  # fmt: skip
    return found


def _scales(weight: Tensor) -> Tensor:
    """Those of its rows where 16 bits are allowed; else they are not asked for."""
    return halves_of(weight).scales if allowed() else weight
