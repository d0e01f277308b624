"""What the discovered latents are about: recognition of behaviours, profiles, geometry, clusters, lengths, contexts.

Labels enter only here and only to NAME and SCORE what was found without them. Latents, and for each behaviour the
dictionary, are chosen on the `select` split and scored on `test` (held-out problems) and `wording` (sentences the model
was never trained on).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from overtone.core.errors import DataError
from overtone.core.seeds import derive, numpy_generator
from overtone.core.sites import Site
from overtone.discover.decompose import Decomposition
from overtone.discover.material import FIT, SELECT, TEST, WORDING, Material
from overtone.discover.page.sections import (
    AtomMap,
    AtomPoint,
    BehaviourAuroc,
    ClusterCard,
    ContextStep,
    DictionaryFacts,
    Estimate,
    FeatureCard,
    LayerSeparability,
    LengthGroup,
    LengthResult,
    TokenWeight,
)
from overtone.evaluate.intervals import Estimate as Measured
from overtone.evaluate.recognition import LabelledCodes, Recogniser, best_among, selected_auroc
from overtone.evaluate.reconstruction import reconstruction
from overtone.evaluate.separability import SilhouetteTest, cosine_distances, silhouette_pairs, silhouette_test
from overtone.interpret.clusters import cluster_atoms, describe_clusters
from overtone.interpret.contexts import Context, ContextFinder
from overtone.interpret.lengths import LengthProfile, length_profile
from overtone.interpret.map import map_atoms
from overtone.interpret.profiles import Profiles, profile, specific
from overtone.interpret.vocabulary import vocabulary_effect
from overtone.interpret.words import distinctive_words

CARDS_PER_BEHAVIOUR = 3
FEWEST_POINTS = 3  # atoms on a map
SPLIT_NAMES = {TEST: "problems", WORDING: "wording"}


def shown(e: Measured) -> Estimate:
    """An estimate as the page and report.json hold it."""
    low, high = e.interval or (None, None)
    return Estimate(e.value, low, high)


@dataclass(frozen=True, eq=False)
class Naming:
    """Everything that labels say about the dictionaries of one anchor."""

    material: Material
    found: Decomposition
    seed: int
    sizes: tuple[Decomposition, ...] = ()  # dictionaries of several sizes, for recognition; default: found alone

    @cached_property
    def codes(self) -> dict[Site, Any]:
        """Codes of all rows, by site, as columns."""
        from overtone.interpret.columns import as_columns

        return {site: as_columns(self.found.codes(site)) for site in self.found.dictionaries}

    @cached_property
    def profiles(self) -> dict[Site, Profiles]:
        """Profiles of all latents on the rows of `fit` and `select`, by site."""
        rows = self.found.rows
        picked = rows.index(FIT, SELECT)
        labels = rows.picked(rows.labels, picked)
        return {
            s: profile(c.tocsr()[picked.numpy()], labels, names=self.material.behaviours) for s, c in self.codes.items()
        }

    @cached_property
    def best_site(self) -> Site:
        """The site whose best latents recognise behaviours best on `select`, averaged over behaviours."""
        return max(self.found.dictionaries, key=lambda site: selected_auroc(self._part(self.codes[site], SELECT)))

    def _part(self, codes: Any, split: str) -> LabelledCodes:
        rows = self.found.rows
        picked = rows.index(split)
        return LabelledCodes(
            codes.tocsr()[picked.numpy()], rows.picked(rows.labels, picked), rows.picked(rows.groups, picked)
        )

    # ------------------------------------------------------------------------------------------------- recognition
    def recognition(self) -> list[BehaviourAuroc]:
        """AUROC of the best single latent per behaviour and held-out split, beside what the same search finds in
        principal axes, under a random decoder, and for shuffled labels. For every behaviour each of them has its own
        best site and size."""
        bases = self._bases()
        results = []
        for split in (TEST, WORDING):
            if not len(self.found.rows.index(split)):
                continue
            try:
                scored = {name: self._scored(codes, split) for name, codes in bases.items()}
                scored["shuffled labels"] = self._scored(bases[""], split, shuffle=True)
            except DataError:  # no behaviour has enough steps in this split
                continue
            for behaviour, ((site, n_latents), best) in scored[""].items():
                controls = {n: shown(s[behaviour][1].auroc) for n, s in scored.items() if n and behaviour in s}
                results.append(
                    BehaviourAuroc(
                        behaviour,
                        SPLIT_NAMES[split],
                        shown(best.auroc),
                        controls,
                        str(site),
                        best.latent,
                        self.found.rows.anchor,
                        None,
                        best.n_positive,
                        n_latents,
                    )
                )
        return results

    def _bases(self) -> dict[str, dict[tuple[Site, int], Any]]:
        """Codes of all rows by (site, number of latents): of the dictionaries ("") and of what they are compared
        with."""
        from overtone.interpret.columns import as_columns

        of_all = self.sizes or (self.found,)
        learned = {
            "": [found.dictionaries for found in of_all],
            "PCA axes": [self.found.axes],
            "random decoder": [found.random for found in of_all],
        }
        x = self.found.rows.x
        codes = {
            name: {(s, d.n_latents): as_columns(d.encode(x[s])) for by_site in ds for s, d in by_site.items()}
            for name, ds in learned.items()
        }
        return {name: found for name, found in codes.items() if found}

    def _scored(
        self, codes: Mapping[tuple[Site, int], Any], split: str, *, shuffle: bool = False
    ) -> dict[str, tuple[tuple[Site, int], Recogniser]]:
        places = {}
        for place, coded in codes.items():
            parts = self._part(coded, SELECT), self._part(coded, split)
            rng = numpy_generator(self.seed, "shuffled", split)  # the same for all: one set of labels for one row
            places[place] = (parts[0].shuffled(rng), parts[1].shuffled(rng)) if shuffle else parts
        rng = numpy_generator(self.seed, "recognition", split, shuffle)
        return best_among(places, rng=rng, behaviours=self.material.behaviours)

    # --------------------------------------------------------------------------------------------------- geometry
    def separability(self) -> list[LayerSeparability]:
        """Cosine silhouette of the labelled atoms of every layer, overall and by pair, against permuted labels."""
        return [self._separability(site, self.profiles[site].labels, "behaviours") for site in self.found.dictionaries]

    def _separability(self, site: Site, labels: Sequence[str | None], what: str) -> LayerSeparability:
        atoms = self.found.dictionaries[site].atoms().detach().numpy()
        kept = [j for j, label in enumerate(labels) if label is not None and np.linalg.norm(atoms[j]) > 0]
        names = [labels[j] for j in kept]
        if len(set(names)) < 2 or len(kept) <= len(set(names)):
            return LayerSeparability(str(site), site.layer, None, n_atoms=len(kept))
        distances = cosine_distances(atoms[kept])
        rng = numpy_generator(self.seed, "silhouette", what, site)
        test = silhouette_test(distances, names, rng=rng)
        pairs = silhouette_pairs(distances, names, rng=rng, permutations=100)
        return _layer(site, test, {" / ".join(map(str, p)): t.value for p, t in pairs.items()})

    def atom_map(self, clusters: Mapping[int, int]) -> AtomMap:
        """The labelled atoms of all layers in one plane."""
        chosen = [(s, j) for s, p in self.profiles.items() for j, label in enumerate(p.labels) if label is not None]
        if len(chosen) < FEWEST_POINTS:
            return AtomMap("", (), "Too few atoms fire on ten steps or more.")
        vectors = np.stack([self.found.dictionaries[s].atoms()[j].detach().numpy() for s, j in chosen])
        laid = map_atoms(vectors, seed=derive(self.seed, "map") % 2**31)
        points = [self._point(s, j, x, y, clusters) for (s, j), (x, y) in zip(chosen, laid.xy.tolist(), strict=True)]
        share = f", two axes, {laid.explained:.0%} of the variance" if laid.method == "pca" else ", cosine"
        return AtomMap(
            laid.method.upper() + share, tuple(points), "Atoms of all layers that fire on ten steps or more."
        )

    def _point(self, site: Site, j: int, x: float, y: float, clusters: Mapping[int, int]) -> AtomPoint:
        p, best = self.profiles[site], site == self.best_site
        return AtomPoint(
            x,
            y,
            str(site),
            site.layer,
            j,
            p.labels[j] or "",
            float(p.purity[j]),
            float(p.fires[j] / p.n_rows),
            _known(self.lengths[site].mean_length[j]),
            self.words(site, j) if best else (),
            clusters.get(j) if best else None,
        )

    # ---------------------------------------------------------------------------------------------------- contexts
    @cached_property
    def texts(self) -> list[str]:
        """The text of every row's step."""
        where, by_document = self.found.rows.where, {}
        for t in self.material.traces:
            by_document[t.document] = self.material.subject.step_texts(t)
        return [by_document[d][s] for d, s in zip(where.document.tolist(), where.step.tolist(), strict=True)]

    @cached_property
    def _finders(self) -> dict[Site, ContextFinder]:
        tokenizer = self.material.subject.model.tokenizer
        rows = self.found.rows
        return {
            s: ContextFinder(
                c, rows.where, self.material.traces, self.material.spans, lambda i: tokenizer.decode([i]) + " "
            )
            for s, c in self.codes.items()
        }

    def words(self, site: Site, latent: int, n: int = 5) -> tuple[str, ...]:
        """What the strongest steps of a latent say more often than others."""
        column = self.codes[site][:, [latent]].toarray()[:, 0]
        top = np.argsort(-np.abs(column), kind="stable")[:50]
        top = [int(i) for i in top if column[i] != 0]
        chosen = set(top)
        rest = (t for i, t in enumerate(self.texts[::5]) if i * 5 not in chosen)
        return tuple(w.word for w in distinctive_words([self.texts[i] for i in top], rest, n=n)) if top else ()

    def contexts(self, site: Site, latent: int, n: int = 5) -> tuple[ContextStep, ...]:
        """The strongest contexts of a latent, one per trace."""
        return tuple(self._context(c) for c in self._finders[site].top(latent, n))

    def _context(self, c: Context) -> ContextStep:
        doc, step = c.origin.document, c.origin.step
        trace, spans = self.material.traces[doc], self.material.spans[doc]
        decode, tokens = self.material.subject.model.tokenizer.decode, trace.tokens
        before = decode(list(tokens[spans[step - 1].start : spans[step - 1].end])) if step else ""
        after = decode(list(tokens[spans[step + 1].start : spans[step + 1].end])) if step + 1 < len(spans) else ""
        text = decode(list(tokens[spans[step].start : spans[step].end]))
        return ContextStep(text, before, after, c.value, self.material.labels[doc][step] or "")

    def cards(self) -> list[FeatureCard]:
        """The latents that stand most purely for each behaviour, at the best site, with contexts and vocabulary."""
        site, p = self.best_site, self.profiles[self.best_site]
        chosen = [j for b in self.material.behaviours for j in specific(p, b, most=CARDS_PER_BEHAVIOUR)]
        return [self._card(site, j) for j in chosen]

    def _card(self, site: Site, j: int) -> FeatureCard:
        p, words = self.profiles[site], self.words(site, j)
        atom = self.found.dictionaries[site].atoms()[j].detach()
        effect = vocabulary_effect(self.material.subject.model, atom, n=8)
        shares = {b: float(p.share[i, j] / max(p.share[:, j].sum(), 1e-12)) for i, b in enumerate(p.names)}
        return FeatureCard(
            str(site),
            j,
            ", ".join(words[:3]),
            p.labels[j] or "",
            float(p.purity[j]),
            float(p.fires[j] / p.n_rows),
            None,
            _known(self.lengths[site].mean_length[j]),
            shares,
            self.contexts(site, j),
            tuple(TokenWeight(t.token, t.shift) for t in effect.raised),
            tuple(TokenWeight(t.token, t.shift) for t in effect.lowered),
        )

    # ---------------------------------------------------------------------------------------------------- clusters
    @cached_property
    def clusters(self) -> tuple[list[ClusterCard], dict[int, int]]:
        """Groups of atoms at the best site found without labels, and the cluster of each latent."""
        site, rows = self.best_site, self.found.rows
        codes, atoms = self.codes[site], self.found.dictionaries[site].atoms()
        rng = numpy_generator(self.seed, "clusters")
        try:
            grouped = cluster_atoms(atoms, codes, rows.where.document, rng=rng, bootstraps=10)
        except DataError:  # too few atoms are active, or nothing tells them apart: there are no clusters
            return [], {}
        stories = describe_clusters(grouped, codes, self.texts)
        members = {j: c.index for c in grouped.clusters for j in c.members}
        return [self._cluster(site, story) for story in stories], members

    def _cluster(self, site: Site, story: Any) -> ClusterCard:
        doc, step = (t.tolist() for t in (self.found.rows.where.document, self.found.rows.where.step))
        names = [self.material.labels[doc[i]][step[i]] for i in story.rows]
        counts = {b: names.count(b) / max(1, len(names)) for b in self.material.behaviours}
        label = max(counts, key=lambda b: counts[b])
        contexts = tuple(ContextStep(self.texts[i], behaviour=names[k] or "") for k, i in enumerate(story.rows[:5]))
        c = story.cluster
        return ClusterCard(
            c.index,
            c.size,
            story.name,
            label,
            counts[label],
            story.share,
            c.silhouette,
            tuple(f"{site} #{j}" for j in c.members[:12]),
            tuple(w.word for w in story.words),
            counts,
            contexts,
        )

    # ----------------------------------------------------------------------------------------------------- lengths
    @cached_property
    def lengths(self) -> dict[Site, LengthProfile]:
        """In how long traces each latent fires (tokens of the response), by site."""
        tokens = {t.document: float(len(t.response_ids)) for t in self.material.traces}
        return {s: length_profile(c, self.found.rows.where.document, tokens) for s, c in self.codes.items()}

    def length_structure(self) -> LengthResult:
        """Do atoms that fire in long responses lie apart from those of short ones? And what are long responses made
        of?"""
        traces = [t for split in (FIT, SELECT, TEST) for t in self.material.of(split)]
        lengths = np.array([len(t.response_ids) for t in traces])
        threshold = float(np.median(lengths))
        is_long = lengths > threshold if (lengths > threshold).any() else lengths >= threshold  # most were cut off
        layers = tuple(self._separability(s, p.sides(), "length") for s, p in self.lengths.items())
        groups = []
        for name, chosen in (("short", ~is_long), ("long", is_long)):
            part = [t for t, is_one in zip(traces, chosen, strict=True) if is_one]
            labels = [label for t in part for label in self.material.labels[t.document]]
            shares = {b: labels.count(b) / max(1, len(labels)) for b in self.material.behaviours}
            if part:
                groups.append(LengthGroup(name, len(part), float(lengths[chosen].mean()), shares))
        return LengthResult(threshold, layers, tuple(groups))

    def facts(self, preset: str) -> list[DictionaryFacts]:
        """How well each layer's dictionary reconstructs held-out steps."""
        results = []
        for site, dictionary in self.found.dictionaries.items():
            picked = self.found.rows.index(TEST)
            x = self.found.rows.x[site][picked]
            codes = dictionary.encode(x)
            q = reconstruction(x, dictionary.decode(codes, x), codes)
            named = sum(label is not None for label in self.profiles[site].labels)
            results.append(
                DictionaryFacts(str(site), preset, dictionary.n_latents, len(x), q.fvu, q.l0, q.dead_share, named)
            )
        return results


def _layer(site: Site, test: SilhouetteTest, pairs: dict[str, float]) -> LayerSeparability:
    return LayerSeparability(
        str(site), site.layer, test.value, test.null_mean, None, test.null_95, test.p, test.n, pairs
    )


def _known(value: float) -> float | None:
    return None if np.isnan(value) else float(value)
