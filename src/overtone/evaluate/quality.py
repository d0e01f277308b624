"""How good is this dictionary? What it misses of some rows, beside what its atoms could reach and what controls miss.

Controls need no training: as many random atoms as long as its own, coded by a pursuit with as many of them active, and
the principal components of the very rows, as many as latents are active (no fixed subspace of that many dimensions
misses less). For a dictionary that predicts other states it is the linear map of these rows that predicts them best.
Sources: those of what is measured (reconstruction, afa, dictionaries/pursuit, faithfulness).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import normalize

from overtone.core.errors import CapabilityError, SettingError, ShapeError
from overtone.core.progress import track
from overtone.core.report import Finding, finite
from overtone.core.seeds import numpy_generator, torch_generator
from overtone.core.settings import require
from overtone.dictionaries.classic.fixed import signed_projection
from overtone.dictionaries.codes import SparseCodes
from overtone.dictionaries.presets.pca import PCA
from overtone.dictionaries.pursuit import Pursuit
from overtone.evaluate.afa import coherence, quasi_orthogonality
from overtone.evaluate.compare import FAIR
from overtone.evaluate.faithfulness import selects_by_gradients
from overtone.evaluate.intervals import Estimate, Resampling, ratio
from overtone.evaluate.reconstruction import fvu, mean_cosine, reconstruction
from overtone.interpret.columns import to_numpy

if TYPE_CHECKING:
    from overtone.dictionaries.dictionary import Dictionary

OWN, GRADIENT, COMPONENTS, MAP, MEAN = (
    "its encoder", "its encoder, given gradients", "principal components", "a linear map", "the mean row",
)  # fmt: skip
CONTROL = "orthogonal"
"""The pursuit that codes on random atoms where none is asked for: the strongest one."""
WORK = 4 * 10**11
"""Products rows x width x latents x k that one pursuit may take; where it takes more, it is tried on fewer rows."""
FEWEST = 500
BLOCKS = 1000
"""Most groups that are resampled; more are joined, neighbours with each other."""
LARGEST_GRAM = 4096  # atoms whose cosines are looked at
SCORES = 2**26  # of latents in memory at a time


@dataclass(frozen=True)
class Coding:
    """One way to write rows. fvu, cosine, l0, dead_share: as in evaluate/reconstruction, with an interval over groups
    for the first, None where there are no latents; n_rows: on how many rows; more: fvu minus that of the dictionary's
    own encoder on the same rows, paired by group (None for itself)."""

    name: str
    fvu: Estimate
    cosine: float
    l0: float | None
    dead_share: float | None
    n_rows: int
    more: Estimate | None = None


@dataclass(frozen=True)
class Quality:
    """How good a dictionary is on some rows. codings: its own encoder first, then pursuits and controls; k: active
    latents that these were given; lengths: `gap`, `excess` and `bound` of evaluate/afa and, up to 4096 atoms, their
    `coherence`; left_out: what cannot be asked of this dictionary -> why; views: of a crosscoder, the fvu of its own
    encoder in each view."""

    codings: tuple[Coding, ...]
    k: int
    lengths: Mapping[str, float] = field(default_factory=dict)
    left_out: Mapping[str, str] = field(default_factory=dict)
    views: tuple[float, ...] = ()

    def of(self, name: str) -> Coding:
        """The coding of a name. Raises SettingError for another, listing those there are."""
        for coding in self.codings:
            if coding.name == name:
                return coding
        raise SettingError(f"there is no {name!r}; there are {', '.join(c.name for c in self.codings)}.")

    def to_dict(self) -> dict[str, Any]:
        """Plain data (JSON types; numbers that are not finite as null)."""
        return finite(asdict(self))

    def findings(self) -> tuple[Finding, ...]:
        """Whether it misses less than each control, and each pursuit less than its encoder, by the interval of the
        paired difference. What more active latents may have brought about, by a factor over 1.05, is no finding."""
        found = []
        for coding in self.codings[1:]:
            if coding.name == MEAN or coding.name == GRADIENT:
                continue
            if coding.name.endswith(ITS_ATOMS):
                found.append(_less(f"pursuit.{coding.name.split()[0]}", coding, self.codings[0]))
            else:
                found.append(_less(f"error.{'_'.join(coding.name.split(',')[0].split())}", self.codings[0], coding))
        return tuple(found)


ITS_ATOMS = "pursuit on its atoms"


def _less(id: str, first: Coding, second: Coding) -> Finding:
    """The finding that the first way misses less than the second, one of which is the dictionary's own."""
    gap = second.more or first.more
    assert gap is not None, "one of the two is compared with the other"
    gap = gap if first.more else replace(gap, value=-gap.value, low=-gap.high, high=-gap.low)
    holds = None if gap.interval is None else gap.high < 0
    note = f"difference {gap.value:+.4g} [{gap.low:+.4g}, {gap.high:+.4g}]"
    if holds and first.l0 and second.l0 and first.l0 / second.l0 > FAIR:
        holds, note = None, f"{note}; not at equal L0 ({first.l0:.3g} against {second.l0:.3g})"
    return Finding(
        id, f"{first.name} misses less than {second.name}", first.fvu.value, "share of variance", gap.n, holds,
        better="lower", interval=first.fvu.interval, control=second.fvu.value, control_name=second.name,
        n_of="groups of rows", note=note,
    )  # fmt: skip


def quality(
    dictionary: Dictionary, x: Tensor, *, y: Tensor | None = None, g: Tensor | None = None,
    groups: Sequence[Any] | None = None, pursuits: Sequence[str] = (), k: int | None = None, seed: int = 0,
    quiet: bool | None = None,
) -> Quality:  # fmt: skip
    """How well a dictionary writes rows that it should not have been trained on.

    x: (rows, width) states, the views of a crosscoder beside each other; y: (rows, width_out) what a transcoder is to
    predict; g: (rows, width) gradients of the loss, for a dictionary that can select by them (others leave them aside);
    groups: the document of each row, by which intervals are drawn (None: every row is its own); pursuits: "matching",
    "orthogonal", "gradient", by which its atoms are tried too; k: active latents of pursuits and controls (None: the
    dictionary's own L0, rounded); seed: of random atoms and of the bootstrap. Shares are of the variance of these rows
    and have no unit.

    Raises ShapeError for rows that do not fit, DataError if they do not vary, SettingError for what is unknown or out
    of range and for a transcoder without y, CapabilityError for a pursuit on a dictionary that has no atoms to add up.
    """
    predicts = dictionary.capabilities.predicts_other_states
    require(
        predicts == (y is not None),
        "this dictionary predicts the states of another site: give those too (y; --target on the command line)."
        if predicts else "this dictionary reconstructs what it reads: leave y (--target) out.",
    )  # fmt: skip
    if y is not None and (y.ndim != 2 or y.shape != (len(x), dictionary.width_out)):
        raise ShapeError(
            f"states to predict: expected ({len(x)}, {dictionary.width_out}), got {tuple(y.shape)}. Give those of the "
            "site that the dictionary was trained to predict, for the same rows."
        )
    n = dictionary.n_latents
    require(k is None or 1 <= k <= n, f"k={k}: of {n} latents 1 to {n} can be active.")
    with torch.no_grad():
        judge = _Judge(dictionary, x, y, np.arange(len(x)) if groups is None else np.asarray(groups), seed)
        k = max(1, round(judge.own.l0)) if k is None else k
        judge.hasten(k)
        lengths, left_out = _lengths(dictionary, x, judge.codes)
        ways = dict(_ways(judge, g, pursuits, k, seed, left_out))
        codings = [judge.coding(name, ways[name]) for name in track(list(ways), "evaluating", quiet=quiet)]
    return Quality(tuple(codings), k, lengths, left_out, judge.views())


def _lengths(dictionary: Dictionary, x: Tensor, codes: SparseCodes) -> tuple[dict[str, float], dict[str, str]]:
    try:
        found = quasi_orthogonality(dictionary, x, codes)
    except CapabilityError as error:
        return {}, {"lengths": str(error).split(". ")[0]}
    told = {"gap": found.gap, "excess": found.excess, "bound": found.bound}
    return told | ({"coherence": coherence(dictionary)} if dictionary.n_latents <= LARGEST_GRAM else {}), {}


Way = Callable[[], "tuple[Tensor, SparseCodes | None, _Rows]"]
"""() -> what is given back, its codes where it has latents, and the rows that it was tried on."""


def _ways(
    judge: _Judge, g: Tensor | None, pursuits: Sequence[str], k: int, seed: int, left_out: dict[str, str]
) -> Iterator[tuple[str, Way]]:
    """By what the rows are written; why others are not goes to `left_out`."""
    dictionary, x, target, every = judge.dictionary, judge.x, judge.target, judge.all
    yield OWN, lambda: (judge.x_hat, judge.codes, every)
    if g is not None and selects_by_gradients(dictionary):
        yield GRADIENT, lambda: (*_written(dictionary, x, g), every)
    for method in pursuits:
        yield f"{method} {ITS_ATOMS}", _pursued(Pursuit(dictionary, method, k=k), judge)
    if dictionary.capabilities.predicts_other_states:
        yield MAP, lambda: (_mapped(x, target), None, every)
    elif k >= dictionary.width:
        left_out["controls"] = f"{k} latents are active in width {dictionary.width}, where any atoms could do as well"
    else:
        atoms = _random_atoms(dictionary, seed)
        random = signed_projection(atoms, atoms, target.mean(0).float())
        for method in pursuits or (CONTROL,):
            chosen = Pursuit(random, method, k=k, signed=dictionary.capabilities.signed_codes)
            yield f"random atoms, {method} pursuit", _pursued(chosen, judge)
        if k < len(x):
            pca = PCA(k).fitted(target, torch_generator(seed, COMPONENTS))
            yield COMPONENTS, lambda: (*_written(pca, x), every)
    yield MEAN, lambda: (target.mean(0).expand_as(target), None, every)


def _pursued(pursuit: Pursuit, judge: _Judge) -> Way:
    places = judge.places
    return lambda: (*_written(pursuit, judge.x if places is None else judge.x[places]), judge.few)


def _written(dictionary: Any, x: Tensor, g: Tensor | None = None) -> tuple[Tensor, SparseCodes]:
    """(reconstruction, codes) of rows, some at a time."""
    rows, parts = max(256, SCORES // dictionary.n_latents), []
    for at in range(0, len(x), rows):
        here = slice(at, at + rows)
        parts.append(dictionary.encode(x[here]) if g is None else dictionary.encode(x[here], {"g": g[here]}))
    codes = SparseCodes.joined(parts)
    return dictionary.decode(codes, x), codes


def _random_atoms(dictionary: Dictionary, seed: int) -> Tensor:
    """(latents, width) random directions; in each view as long as the dictionary's own atoms are there."""
    draw, widths = torch_generator(seed, "random atoms"), list(dictionary.views)
    blocks = [normalize(torch.randn(dictionary.n_latents, width, generator=draw), dim=1) for width in widths]
    if dictionary.capabilities.linear_decoder:
        own = dictionary.atoms().float().cpu().split(widths, 1)
        blocks = [block * part.norm(dim=1, keepdim=True) for block, part in zip(blocks, own, strict=True)]
    return torch.cat(blocks, 1)


def _mapped(x: Tensor, y: Tensor) -> Tensor:
    """The linear map of these rows, with a constant, that predicts y best."""
    centred, mean = (x - x.mean(0)).double(), y.mean(0)
    solved = torch.linalg.lstsq(centred, (y - mean).double(), driver="gelsd").solution
    return (centred @ solved).to(y) + mean


class _Rows:
    """Some rows, and the share of their variance that errors amount to, in every draw of their groups."""

    def __init__(self, target: np.ndarray, groups: Any, drawn: Resampling) -> None:
        self.target, self.groups, self.drawn = target, groups, drawn
        centred = target - target.mean(0)
        sums = drawn.sums(np.column_stack([np.ones(len(target)), (centred**2).sum(1), centred]), groups)
        self.spread = sums[:, 1] - ratio((sums[:, 2:] ** 2).sum(1), sums[:, 0])
        self.spread[self.spread < 1e-9 * self.spread[0]] = 0  # one row alone, again and again
        self.own = np.zeros(len(drawn.weights))

    def share(self, x_hat: Tensor) -> np.ndarray:
        """(1 + draws,) share that is missed; around the mean of the rows that are drawn."""
        missed = ((self.target - to_numpy(x_hat).astype(np.float64)) ** 2).sum(1, keepdims=True)
        return ratio(self.drawn.sums(missed, self.groups)[:, 0], self.spread)


class _Judge:
    """The rows, and what a way of writing them misses; one resampling of their groups serves all."""

    def __init__(self, dictionary: Dictionary, x: Tensor, y: Tensor | None, groups: np.ndarray, seed: int) -> None:
        require(len(groups) == len(x), f"{len(groups)} groups for {len(x)} rows: give the document of each row.")
        self.dictionary, self.x, self.target = dictionary, x, x if y is None else y
        self.x_hat, self.codes = _written(dictionary, x)
        ranks = np.unique(groups, return_inverse=True)[1]
        count = int(ranks.max()) + 1
        ranks = ranks if count <= BLOCKS else ranks * BLOCKS // count
        self.drawn = Resampling.over(range(ranks.max() + 1), rng=numpy_generator(seed, "quality"), draws=1000)
        exact = to_numpy(self.target).astype(np.float64)
        self.own, self.all = reconstruction(exact, self.x_hat, self.codes), _Rows(exact, ranks, self.drawn)
        self.all.own = self.all.share(self.x_hat)
        self.places, self.few = None, self.all

    def views(self) -> tuple[float, ...]:
        """The fvu in each view, where there are several."""
        widths = list(self.dictionary.views)
        if len(widths) < 2:
            return ()
        parts = zip(self.target.split(widths, 1), self.x_hat.split(widths, 1), strict=True)
        return tuple(fvu(part, given_back) for part, given_back in parts)

    def hasten(self, k: int) -> None:
        """Choose rows, spread evenly, on which pursuits of k steps are tried, where all of them would take long."""
        n = max(FEWEST, WORK // (self.dictionary.width * self.dictionary.n_latents * k))
        if n < len(self.x):
            self.places = np.linspace(0, len(self.x) - 1, n).round().astype(np.int64)
            self.few = _Rows(self.all.target[self.places], self.all.groups[self.places], self.drawn)
            self.few.own = self.few.share(self.x_hat[self.places])

    def coding(self, name: str, way: Way) -> Coding:
        """What a way misses."""
        x_hat, codes, rows = way()
        series = rows.share(x_hat)
        if codes is None:
            told = mean_cosine(rows.target, x_hat), None, None
        else:
            found = reconstruction(rows.target, x_hat, codes)
            told = found.cosine, found.l0, found.dead_share
        more = None if name == OWN else self._estimate(series - rows.own)
        return Coding(name, self._estimate(series), *told, len(rows.target), more)

    def _estimate(self, series: np.ndarray) -> Estimate:
        found = self.drawn.estimate(series)
        return found if found.n > 1 else replace(found, low=float("nan"), high=float("nan"))
