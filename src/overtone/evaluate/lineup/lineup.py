"""The lineup: every kind of dictionary trained on the same rows, with its error, sparsity, stability and cost."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

from overtone.core.errors import OvertoneError, SettingError
from overtone.core.progress import track
from overtone.core.report import finite
from overtone.evaluate.compare import Comparison, Sample, compare
from overtone.evaluate.intervals import Estimate, over_seeds
from overtone.evaluate.lineup.entrants import Entrant, entrants

if TYPE_CHECKING:
    from overtone.dictionaries.dictionary import Dictionary

COUNTED_ROWS = 512  # rows of the step whose multiplications are counted


@dataclass(frozen=True)
class Standing:
    """How one preset did with one budget. Each estimate is a mean over seeds with its interval.

    k: active latents asked for, None where the preset finds its own number; fvu: share of the variance of held-out rows
    that is missed; l0: active latents per held-out row; dead_share: of latents that are active in no held-out row;
    stability: mean cosine of matched atoms between seeds, None with one seed or without atoms; seconds: processor time
    of one training; matmul_units: dense products rows x width x latents of one training step, None where training takes
    no steps.
    """

    name: str
    k: int | None
    role: str
    paper: str
    fvu: Estimate
    l0: Estimate
    dead_share: Estimate
    seconds: Estimate
    stability: float | None = None
    matmul_units: float | None = None


@dataclass(frozen=True)
class Lineup:
    """All standings, the best reconstruction first within a budget; left_out: name -> why it is not there; settings:
    what everything was trained with; rows: of the first seed, {"train", "held_out", "width"}."""

    standings: tuple[Standing, ...]
    left_out: Mapping[str, str]
    settings: Mapping[str, Any]
    rows: Mapping[str, int] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """Plain data (JSON types; numbers that are not finite as null)."""
        return finite(asdict(self))


def lineup(
    sample: Callable[[int], Sample], *, n_latents: int, ks: Sequence[int], seeds: Sequence[int], n_tokens: int,
    names: Sequence[str] = (), batch_rows: int = 512, lr: float | None = None, quiet: bool | None = None,
) -> Lineup:  # fmt: skip
    """Train the presets of some names (none: all that can) at equal width on each seed's rows, once per budget.

    sample: seed -> its rows, split by document; ks: budgets of active latents per row; n_tokens, batch_rows, lr: as for
    `training.fit.fit_many`. A preset that cannot be trained on these rows is left out, with the reason. Raises
    SettingError for an unknown name or if nothing is left to compare.
    """
    samples = {seed: sample(seed) for seed in seeds}
    plans, left_out = [], {}
    for k in ks:
        able, unable = entrants(names, n_latents, k, gradients=samples[seeds[0]].g is not None)
        plans += [one for one in able if one.k is not None or k == ks[0]]
        left_out |= unable
    standings = []
    for entrant in track(plans, "comparing", quiet=quiet):
        try:
            trained = compare(
                {entrant.name: entrant.preset}, samples.__getitem__, seeds=seeds, n_tokens=n_tokens,
                batch_rows=batch_rows, lr=lr,
            )  # fmt: skip
        except OvertoneError as error:
            left_out[entrant.name] = str(error)
            continue
        standings.append(_standing(entrant, trained, samples[seeds[0]]))
    if not standings:
        raise SettingError(f"nothing can be compared: {'; '.join(f'{n}: {why}' for n, why in left_out.items())}")
    settings = {
        "n_latents": n_latents, "ks": list(ks), "seeds": list(seeds), "n_tokens": n_tokens, "batch_rows": batch_rows,
        "lr": lr,
    }  # fmt: skip
    first = samples[seeds[0]]
    rows = {"train": len(first.train), "held_out": len(first.held_out), "width": first.train.shape[1]}
    return Lineup(tuple(sorted(standings, key=lambda s: (s.k or 0, s.fvu.value))), left_out, settings, rows)


def _standing(entrant: Entrant, trained: Comparison, rows: Sample) -> Standing:
    name = entrant.name
    trials = trained.of(name)
    return Standing(
        name, entrant.k, entrant.role, entrant.paper,
        *(trained.mean(name, measure) for measure in ("fvu", "l0", "dead_share")),
        seconds=over_seeds([trial.seconds for trial in trials]),
        stability=trained.stability(name),
        matmul_units=_units(entrant, trials[0].dictionary, rows),
    )  # fmt: skip


def _units(entrant: Entrant, dictionary: Dictionary, rows: Sample) -> float | None:
    from overtone.dictionaries.autoencoder import Autoencoder
    from overtone.evaluate.cost import matmul_units

    if entrant.preset.whole or not isinstance(dictionary, Autoencoder):
        return None
    g = None if rows.g is None or "g" not in entrant.preset.needs else rows.g[:COUNTED_ROWS]
    return matmul_units(entrant.preset, dictionary, rows.train[:COUNTED_ROWS], g=g)


def by_document(x: Any, document: Any, seed: int, held_out: float = 0.3) -> Sample:
    """Rows x (rows, width) split by `document` (rows,) so that no document lies on both sides; at least `held_out` of
    the documents, drawn by the seed, are held out. Raises SettingError for fewer than two documents."""
    import torch

    from overtone.core.seeds import torch_generator

    names = document.unique()
    if len(names) < 2:
        raise SettingError(f"{len(names)} document cannot be split in two. Collect states of more texts.")
    order = names[torch.randperm(len(names), generator=torch_generator(seed, "documents"))]
    outside = torch.isin(document, order[: max(1, round(held_out * len(order)))])
    return Sample(x[~outside], x[outside])
