"""The lineup: every kind of dictionary trained on the same rows, with its error, sparsity, stability and cost."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from overtone.core.devices import usable
from overtone.core.errors import OvertoneError, SettingError
from overtone.core.progress import say, track_costs
from overtone.core.report import finite
from overtone.core.settings import require
from overtone.evaluate.compare import Comparison, Sample, Trial, trial
from overtone.evaluate.intervals import Estimate, over_seeds
from overtone.evaluate.lineup.costs import expected_seconds
from overtone.evaluate.lineup.entrants import ROUNDS, Entrant, entrants
from overtone.evaluate.lineup.shelf import Order, Shelf, fingerprint

if TYPE_CHECKING:
    from overtone.dictionaries.dictionary import Dictionary

COUNTED_ROWS = 512  # rows of the step whose multiplications are counted


@dataclass(frozen=True)
class Standing:
    """How one preset did with one budget. Each estimate is a mean over seeds with its interval.

    k: active latents asked for, None where the preset finds its own number; n_latents: fewer than the others' where
    there cannot be as many; fvu: share of the variance of held-out rows that is missed; l0: active latents per held-out
    row; dead_share: of latents that are active in no held-out row; stability: mean cosine of matched atoms between
    seeds, None with one seed or without atoms; seconds: of one training, of processor time on a CPU, by the wall's
    clock elsewhere; matmul_units: dense products rows x width x latents of one training step, None where training takes
    no steps.
    """

    name: str
    k: int | float | None
    role: str
    paper: str
    n_latents: int
    fvu: Estimate
    l0: Estimate
    dead_share: Estimate
    seconds: Estimate
    stability: float | None = None
    matmul_units: float | None = None


@dataclass(frozen=True)
class Lineup:
    """All standings, the best reconstruction first within a budget, those without one last; left_out: name -> why it is
    not there; settings: what everything was trained with; rows: of the first seed, {"train", "held_out", "width"}."""

    standings: tuple[Standing, ...]
    left_out: Mapping[str, str]
    settings: Mapping[str, Any]
    rows: Mapping[str, int] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """Plain data (JSON types; numbers that are not finite as null)."""
        return finite(asdict(self))


def lineup(
    sample: Callable[[int], Sample], *, n_latents: int, ks: Sequence[int | float], seeds: Sequence[int], n_tokens: int,
    names: Sequence[str] = (), batch_rows: int = 512, lr: float | None = None, rounds: int = ROUNDS,
    keep: str | Path | None = None, quiet: bool | None = None, device: str = "cpu",
) -> Lineup:  # fmt: skip
    """Train the presets of some names (none: all that can) at equal width on each seed's rows, once per budget.

    sample: seed -> its rows, split by document; ks: budgets of active latents per row; n_tokens, batch_rows, lr,
    device: as for `training.fit.fit_many`; rounds: as for `entrants`; keep: folder where every finished training is
    kept, and found again by all that it depends on, so that an interrupted lineup goes on and another one shares what
    is the same (None: nothing is kept). A preset that cannot be trained on these rows is left out, with the reason.
    Raises SettingError for an unknown name, a device that cannot be used, or if nothing is left to compare.
    """
    require(bool(seeds) and bool(ks), f"{len(seeds)} seeds and {len(ks)} budgets k: give at least one of each.")
    device = usable(device)
    samples = {seed: sample(seed) for seed in seeds}
    settings = {
        "n_latents": n_latents, "ks": list(ks), "seeds": list(seeds), "n_tokens": n_tokens, "batch_rows": batch_rows,
        "lr": lr, "rounds": rounds, "device": device,
    }  # fmt: skip
    plans, left_out = _plans(names, settings, samples[seeds[0]])
    with tempfile.TemporaryDirectory() as passing:
        shelf = Shelf(Path(passing if keep is None else keep))
        orders = _orders(plans, settings, samples)
        failed = _train(orders, shelf, samples, settings, quiet)
        left_out |= {plan.name: why for plan, why in failed.items()}
        standings = [
            _standing(plan, [shelf.get(order) for order in orders if order.entrant == plan], samples[seeds[0]])
            for plan in plans
            if plan not in failed
        ]
    if not standings:
        raise SettingError(f"nothing can be compared: {' '.join(f'{n}: {why}' for n, why in left_out.items())}")
    first = samples[seeds[0]]
    rows = {"train": len(first.train), "held_out": len(first.held_out), "width": first.train.shape[1]}
    return Lineup(
        tuple(sorted(standings, key=lambda s: (s.k is None, s.k or 0, s.fvu.value))), left_out, settings, rows
    )


def _plans(names: Sequence[str], settings: Mapping[str, Any], rows: Sample) -> tuple[list[Entrant], dict[str, str]]:
    """Everyone with every budget, those without one once; and who cannot stand there, with the reason."""
    plans, left_out = [], dict[str, str]()
    size = {"width": rows.train.shape[1], "rounds": settings["rounds"], "gradients": rows.g is not None}
    for k in settings["ks"]:
        able, unable = entrants(names, settings["n_latents"], k, **size)
        plans += [one for one in able if one.k is not None or k == settings["ks"][0]]
        left_out |= unable
    return plans, left_out


def _orders(plans: list[Entrant], settings: Mapping[str, Any], samples: Mapping[int, Sample]) -> list[Order]:
    """One training per plan and seed, seed by seed, so that an early end leaves something of everyone."""
    shared = [settings[name] for name in ("n_tokens", "batch_rows", "lr", "device")]
    prints = {seed: fingerprint(rows) for seed, rows in samples.items()}
    return [Order(plan, seed, prints[seed], *shared) for seed in samples for plan in plans]


def _train(
    orders: list[Order], shelf: Shelf, samples: Mapping[int, Sample], settings: Mapping[str, Any], quiet: bool | None
) -> dict[Entrant, str]:
    """Train what is not on the shelf. Returns who cannot be trained, and why."""
    missing = [order for order in orders if not shelf.has(order)]
    if len(missing) < len(orders):
        say(f"{len(orders) - len(missing)} of {len(orders)} trainings are kept already in {shelf.folder}", quiet=quiet)
    costs, failed = _expected(missing, samples)
    able = [order for order in missing if order.entrant not in failed]
    if able:
        total, where = _length(sum(costs[order.entrant] for order in able)), settings["device"]
        say(f"{len(able)} trainings to do: about {total} on {'one core' if where == 'cpu' else where}", quiet=quiet)
    options = {name: settings[name] for name in ("n_tokens", "batch_rows", "lr", "device")}
    for order in track_costs(able, lambda o: f"comparing {o.label}", lambda o: costs[o.entrant], quiet=quiet):
        if order.entrant in failed:
            continue
        try:
            made = trial(order.entrant.name, order.entrant.preset, samples[order.seed], order.seed, **options)
            shelf.put(order, made)
        except OvertoneError as error:
            failed[order.entrant] = str(error)
    return failed


def _expected(orders: list[Order], samples: Mapping[int, Sample]) -> tuple[dict[Entrant, float], dict[Entrant, str]]:
    """Seconds of one training of each, and who failed at once, with the reason."""
    costs, failed = dict[Entrant, float](), dict[Entrant, str]()
    for order in orders:
        if order.entrant not in costs | failed:
            try:
                costs[order.entrant] = expected_seconds(order, samples[order.seed])
            except OvertoneError as error:
                failed[order.entrant] = str(error)
    return costs, failed


def _length(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 90 else f"{seconds / 60:.0f} min"


def _standing(entrant: Entrant, trials: Sequence[Trial], rows: Sample) -> Standing:
    trained = Comparison(tuple(trials))
    return Standing(
        entrant.name, entrant.k, entrant.role, entrant.paper, entrant.preset.n_latents,
        *(trained.mean(entrant.name, measure) for measure in ("fvu", "l0", "dead_share")),
        seconds=over_seeds([one.seconds for one in trials]),
        stability=trained.stability(entrant.name),
        matmul_units=_units(entrant, trials[0].dictionary, rows),
    )  # fmt: skip


def _units(entrant: Entrant, dictionary: Dictionary, rows: Sample) -> float | None:
    from overtone.dictionaries.autoencoder import Autoencoder
    from overtone.evaluate.cost import matmul_units

    if entrant.preset.whole or not isinstance(dictionary, Autoencoder):
        return None
    g = None if rows.g is None or "g" not in entrant.preset.needs else rows.g[:COUNTED_ROWS]
    return matmul_units(entrant.preset, dictionary, rows.train[:COUNTED_ROWS], g=g)


def by_document(x: Any, document: Any, seed: int, held_out: float = 0.3, g: Any = None) -> Sample:
    """Rows x (rows, width) split by `document` (rows,), as `held_out_rows` says. g: gradients of the rows, where there
    are any. Raises SettingError for fewer than two documents."""
    outside = held_out_rows(document, seed, held_out)
    return Sample(x[~outside], x[outside], g=None if g is None else g[~outside])


def held_out_rows(document: Any, seed: int, held_out: float = 0.3) -> Any:
    """(rows,) bool: which rows a seed holds out, so that no document lies on both sides; at least `held_out` of the
    documents, drawn by the seed. Raises SettingError for fewer than two documents."""
    import torch

    from overtone.core.seeds import torch_generator

    names = document.unique()
    if len(names) < 2:
        raise SettingError(f"{len(names)} document cannot be split in two. Collect states of more texts.")
    order = names[torch.randperm(len(names), generator=torch_generator(seed, "documents"))]
    return torch.isin(document, order[: max(1, round(held_out * len(order)))])
