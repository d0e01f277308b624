"""Dictionaries of step states, one per layer and anchor, with the bases they must beat."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from overtone.core.artifacts import MANIFEST
from overtone.core.catalogue import lookup
from overtone.core.memory import give_back
from overtone.core.settings import require
from overtone.core.sites import Site
from overtone.discover.material import FIT, Material, Rows
from overtone.discover.settings import DictionarySettings, DiscoverSettings

if TYPE_CHECKING:
    from overtone.dictionaries.codes import SparseCodes
    from overtone.dictionaries.dictionary import Dictionary
    from overtone.dictionaries.preset import Preset
    from overtone.discover.run import Run

BATCH_ROWS = 1024  # RISE
SHORT = 2**28  # multiplications of a product that two threads hardly do sooner; if one of them is held up, much later
RANDOM, PCA = "random_directions", "pca"


@dataclass(frozen=True, eq=False)
class Decomposition:
    """Everything learned from the `fit` rows of one anchor: site -> dictionary, and the same rows under a random
    decoder
    and under principal axes."""

    rows: Rows
    dictionaries: Mapping[Site, Dictionary]
    random: Mapping[Site, Dictionary]
    axes: Mapping[Site, Dictionary]

    def codes(self, site: Site) -> SparseCodes:
        """Codes of all rows at a site."""
        return self.dictionaries[site].encode(self.rows.x[site])


def sizes(run: Run, material: Material, settings: DiscoverSettings, named: Decomposition) -> tuple[Decomposition, ...]:
    """The naming dictionaries in every size that competes to recognise behaviours, each with its random decoder."""
    others = (settings.naming.replaced(expansion=size) for size in settings.sizes)
    made = (decompose(run, material, settings, d, bases=True) for d in others if d != settings.naming)
    return (named, *made)


def chosen_preset(name: str, width: int, d: DictionarySettings) -> Preset:
    """A preset with the settings' size. Raises SettingError for an unknown name, and one of several views: here is one
    site at a time."""
    n_latents, entry = max(2, round(d.expansion * width)), lookup("dictionaries", name)
    several = entry.facts["capabilities"]["several_views"]
    require(not several, f"{name} joins the states of several sites, and is given one. Use a kind for one, as top_k.")
    return entry.thing.example(n_latents=n_latents, k=min(d.active, n_latents))


def decompose(
    run: Run,
    material: Material,
    settings: DiscoverSettings,
    d: DictionarySettings,
    *,
    bases: bool,
    sites: Sequence[Site] = (),
) -> Decomposition:
    """Train (or reuse) a dictionary per site on the `fit` rows of an anchor; bases: also the two it is compared with;
    sites: at these only (default: all)."""
    rows = material.rows(run, d.anchor)
    rows = replace(rows, x={site: rows.x[site] for site in sites}) if sites else rows
    names = (d.preset, RANDOM) if bases else (d.preset,)
    trained = {name: _trained(run, material, rows, settings, d, name) for name in names}
    return Decomposition(rows, trained[d.preset], trained.get(RANDOM, {}), _axes(rows) if bases else {})


def _trained(
    run: Run, material: Material, rows: Rows, settings: DiscoverSettings, d: DictionarySettings, name: str
) -> dict[Site, Dictionary]:
    from overtone.dictionaries.storage import load_dictionary
    from overtone.training.fit import Job, fit_many

    fit_rows = rows.index(FIT)
    key = [
        settings.seed,
        d.to_dict(),
        rows.anchor,
        name,
        material.subject.model.fingerprint,
        material.fingerprint(FIT),
    ]
    folders = {site: run.path(f"{name}-{rows.anchor}-{site}", key) for site in rows.x}
    missing = [site for site, folder in folders.items() if not (folder / MANIFEST).exists()]
    if missing:
        started = time.monotonic()
        states = {site: rows.x[site][fit_rows] for site in missing}
        width = {site: x.shape[1] for site, x in states.items()}
        jobs = [Job(chosen_preset(name, width[site], d), site) for site in missing]
        batch_rows = min(BATCH_ROWS, len(fit_rows))
        product = batch_rows * max(w * job.preset.n_latents for w, job in zip(width.values(), jobs, strict=True))
        with _threads(1 if product < SHORT else None):
            fitted = fit_many(
                jobs, states, n_tokens=d.epochs * len(fit_rows), batch_rows=batch_rows, seed=settings.seed
            )
        give_back()
        for site, one in zip(missing, fitted, strict=True):
            one.save(folders[site], sources={"model": material.subject.model.fingerprint})
        run.spent(f"dictionaries {name} {rows.anchor}", time.monotonic() - started)
    else:
        run.reused.append(f"dictionaries {name} {rows.anchor}")
    return {site: load_dictionary(folder) for site, folder in folders.items()}


@contextmanager
def _threads(n: int | None) -> Iterator[None]:
    """Within, torch uses n threads (None: as many as before)."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(n or before)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _axes(rows: Rows) -> dict[Site, Dictionary]:
    from overtone.training.fit import fit

    fit_rows = rows.index(FIT)
    found = {}
    for site, x in rows.x.items():
        n = min(x.shape[1], len(fit_rows) - 1)
        found[site] = fit(
            lookup("dictionaries", PCA).thing.example(n_latents=n, k=n), x[fit_rows], n_tokens=len(fit_rows)
        ).dictionary
    return found
