"""Sections of a report as small frozen values; `to_dict` gives the plain data that `render` and `report.json` hold.

Every section is optional, and so is every field with a default: what was not measured stays None, "" or empty, and the
page leaves it out. Behaviours are free names (see README.md for those with a colour of their own); sites are written
like "residual.4"; shares, rates and probabilities are in 0..1; times are seconds; entropies and KL are nats.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any


@dataclass(frozen=True)
class Section:
    """Base of every section and of its parts."""

    def to_dict(self) -> dict[str, Any]:
        """Plain data: dicts, lists, strings, numbers, None; field names are the keys."""
        return {f.name: plain(getattr(self, f.name)) for f in fields(self)}


def plain(value: Any) -> Any:
    """`value` with every Section, mapping and sequence in it turned into plain data."""
    if value is None or isinstance(value, str | int | float):
        return value
    if isinstance(value, Section):
        return value.to_dict()
    if isinstance(value, Mapping):
        return {str(k): plain(v) for k, v in value.items()}
    return [plain(v) for v in value] if isinstance(value, list | tuple) else value


@dataclass(frozen=True)
class Estimate(Section):
    """A number with its 95 % interval. For a set of control directions: their mean, and the range they span."""

    value: float | None
    low: float | None = None
    high: float | None = None


# ------------------------------------------------------------------------------------------------------------- summary
@dataclass(frozen=True)
class KeyNumber(Section):
    """One of the three to six numbers on top: what it is, the number as it shall be read ("x2.4", "0.97"), and against
    what ("random direction: x1.02"). behaviour colours it."""

    label: str
    value: str
    note: str = ""
    behaviour: str = ""


@dataclass(frozen=True)
class Summary(Section):
    """What was found, in plain words. sentences: one to five, without markup."""

    sentences: tuple[str, ...]
    key_numbers: tuple[KeyNumber, ...] = ()


# ----------------------------------------------------------------------------------------------------------- the model
@dataclass(frozen=True)
class BehaviourShare(Section):
    """Share of steps of one behaviour: in the model's traces, and in what it was trained on (None if unknown)."""

    behaviour: str
    model: float
    reference: float | None = None


@dataclass(frozen=True)
class ModelFacts(Section):
    """The subject: size, and how well it does its task without steering. tokens: mean tokens per response.

    labels says where the names of steps come from: "parser", "keywords" or "judge".
    """

    name: str
    fingerprint: str = ""
    n_parameters: int | None = None
    n_layers: int | None = None
    width: int | None = None
    n_vocabulary: int | None = None
    n_traces: int | None = None
    n_steps: int | None = None
    labels: str = ""
    solve_rate: Estimate | None = None
    arithmetic: Estimate | None = None
    legal: Estimate | None = None
    finished: Estimate | None = None
    tokens: Estimate | None = None
    behaviours: tuple[BehaviourShare, ...] = ()
    reference_name: str = "generator"


@dataclass(frozen=True)
class DictionaryFacts(Section):
    """One trained dictionary: fvu (fraction of variance unexplained, 0 is perfect), l0 (mean active latents per step),
    dead (share of latents that never fire), all on held-out steps."""

    site: str
    preset: str
    n_latents: int
    n_rows: int
    fvu: float | None = None
    l0: float | None = None
    dead: float | None = None
    n_named: int | None = None


# ----------------------------------------------------------------------------------------------------- discovered atoms
@dataclass(frozen=True)
class AtomPoint(Section):
    """One atom on the map. x, y: any scale; label: its behaviour, "" if it has none; purity: share of its label in its
    profile; rate: share of steps on which it fires; length: mean tokens of the traces in which it fires; words: what
    its top contexts say most; cluster: number of its ClusterCard."""

    x: float
    y: float
    site: str
    layer: int
    latent: int
    label: str = ""
    purity: float | None = None
    rate: float | None = None
    length: float | None = None
    words: tuple[str, ...] = ()
    cluster: int | None = None


@dataclass(frozen=True)
class AtomMap(Section):
    """The 2-D map. method: "UMAP, cosine" or "PCA, two axes, 31 % of the variance"; at most some thousand points."""

    method: str
    points: tuple[AtomPoint, ...]
    note: str = ""


@dataclass(frozen=True)
class LayerSeparability(Section):
    """Cosine silhouette (-1..1) of the labelled atoms of one layer against permuted labels.

    null_*: mean, 5th and 95th percentile over permutations; pairs: "reflection / backtracking" -> that of the two.
    """

    site: str
    layer: int
    silhouette: float | None
    null_mean: float | None = None
    null_low: float | None = None
    null_high: float | None = None
    p_value: float | None = None
    n_atoms: int | None = None
    pairs: Mapping[str, float | None] = field(default_factory=dict)


@dataclass(frozen=True)
class BehaviourAuroc(Section):
    """How well the single best latent tells one behaviour from the rest on one held-out split.

    split: "problems" (held-out problems) or "wording" (held-out wording); latent was selected on other traces;
    controls: "PCA axes", "random decoder", "shuffled labels", ... -> the same score for that control; bound: what the
    best possible forecast reaches at this anchor, if known; n: steps of the behaviour in the split; n_latents: size of
    the dictionary that was selected.
    """

    behaviour: str
    split: str
    auroc: Estimate
    controls: Mapping[str, Estimate] = field(default_factory=dict)
    site: str = ""
    latent: int | None = None
    anchor: str = ""
    bound: float | None = None
    n: int | None = None
    n_latents: int | None = None


@dataclass(frozen=True)
class TokenWeight(Section):
    """A token as printed, and how much the direction raises (> 0) or lowers (< 0) its logit."""

    token: str
    weight: float


@dataclass(frozen=True)
class ContextStep(Section):
    """Where a latent fires: the step, some text before and after it, its activation and its label."""

    step: str
    before: str = ""
    after: str = ""
    activation: float | None = None
    behaviour: str = ""


@dataclass(frozen=True)
class FeatureCard(Section):
    """One discovered latent. name: automatic, short; profile: behaviour -> share of its activity (sums to one)."""

    site: str
    latent: int
    name: str = ""
    label: str = ""
    purity: float | None = None
    rate: float | None = None
    auroc: float | None = None
    length: float | None = None
    profile: Mapping[str, float] = field(default_factory=dict)
    contexts: tuple[ContextStep, ...] = ()
    raised: tuple[TokenWeight, ...] = ()
    lowered: tuple[TokenWeight, ...] = ()


@dataclass(frozen=True)
class ClusterCard(Section):
    """A group of atoms found without labels. latents: like "residual.4 #17"; label and purity are looked up afterwards;
    label "" or purity below `UNNAMED_BELOW` makes it unnamed, and the page lists it by itself."""

    cluster: int
    n_latents: int
    name: str = ""
    label: str = ""
    purity: float | None = None
    rate: float | None = None
    cohesion: float | None = None
    latents: tuple[str, ...] = ()
    words: tuple[str, ...] = ()
    profile: Mapping[str, float] = field(default_factory=dict)
    contexts: tuple[ContextStep, ...] = ()


UNNAMED_BELOW = 0.6
"""A cluster whose purity is lower has no name of its own."""


# ------------------------------------------------------------------------------------------------------------ causality
@dataclass(frozen=True)
class DosePoint(Section):
    """What was measured at one strength. counts: behaviour -> steps per response; rates: behaviour -> share of steps;
    tokens, steps: per response; validity: share of arithmetic statements that are right; kl: nats per edited state."""

    strength: float
    counts: Mapping[str, Estimate] = field(default_factory=dict)
    rates: Mapping[str, Estimate] = field(default_factory=dict)
    accuracy: Estimate | None = None
    tokens: Estimate | None = None
    steps: Estimate | None = None
    validity: Estimate | None = None
    finished: Estimate | None = None
    kl: Estimate | None = None


@dataclass(frozen=True)
class DoseSeries(Section):
    """One direction, or a set of control directions, over all strengths.

    role: "steered" (the discovered vector; exactly one per curve), "rival" (another vector of the same behaviour, such
    as the difference of means), "random" (random directions of equal norm: drawn as a band), "shuffled" (labels
    permuted), "bias" (the logit-bias baseline).
    """

    name: str
    role: str
    points: tuple[DosePoint, ...]


@dataclass(frozen=True)
class DoseCurve(Section):
    """Dose and response of one behaviour's vector. unit: of the strengths, in words ("typical projections");
    positive strength amplifies. effect: log ratio of the target's rate at the largest and the smallest strength;
    control_effect: largest |log ratio| of the random directions; spearman: of strength and mean rate; n: problems."""

    behaviour: str
    site: str
    unit: str
    series: tuple[DoseSeries, ...]
    edit: str = "add"
    n: int | None = None
    effect: Estimate | None = None
    control_effect: float | None = None
    spearman: float | None = None
    note: str = ""


@dataclass(frozen=True)
class TraceStep(Section):
    """One step as printed. edited: the state before it was edited; valid: its arithmetic is right (None: no claim)."""

    text: str
    behaviour: str = ""
    edited: bool = False
    valid: bool | None = None


@dataclass(frozen=True)
class TracePanel(Section):
    """One response. role: "suppressed", "unsteered" or "amplified"; strength: in the unit of the comparison."""

    role: str
    steps: tuple[TraceStep, ...]
    strength: float = 0.0
    correct: bool | None = None
    finished: bool | None = None
    n_tokens: int | None = None


@dataclass(frozen=True)
class TraceComparison(Section):
    """The same problem, with the same random numbers, answered at several strengths of one behaviour's vector."""

    behaviour: str
    prompt: str
    panels: tuple[TracePanel, ...]
    site: str = ""
    unit: str = ""


@dataclass(frozen=True)
class TransferRow(Section):
    """A vector used on a second task distribution, as it is. Values: steps of the behaviour per response, or their
    share (see unit); control: a random direction at the amplifying strength."""

    behaviour: str
    distribution: str
    unsteered: Estimate
    amplified: Estimate
    suppressed: Estimate
    control: Estimate | None = None
    unit: str = "steps per response"
    n: int | None = None


# ------------------------------------------------------------------------------------------------ confidence and length
@dataclass(frozen=True)
class ConfidenceLatent(Section):
    """A latent that the search prefers: its score S_j, and what it is called."""

    latent: int
    score: float
    label: str = ""
    words: tuple[str, ...] = ()


@dataclass(frozen=True)
class EffectRow(Section):
    """One quantity before and after injection, and under the random control."""

    name: str
    before: Estimate
    after: Estimate
    control: Estimate | None = None
    unit: str = ""


@dataclass(frozen=True)
class ConfidenceResult(Section):
    """Entropy minimisation over the decoder space. Entropies: mean nats of the next token at held-out anchors;
    entropy_random: one per random S of equal ||S W_dec||; budget: ||S W_dec|| in mean residual norms;
    entropy_path: entropy on the search's own rows during the search, at even spacing."""

    site: str
    entropy_before: float
    entropy_after: float
    entropy_random: tuple[float, ...] = ()
    budget: float | None = None
    entropy_path: tuple[float, ...] = ()
    rank_stability: float | None = None
    top: tuple[ConfidenceLatent, ...] = ()
    effects: tuple[EffectRow, ...] = ()


@dataclass(frozen=True)
class LengthGroup(Section):
    """Short or long responses: how many, and the share of steps of each behaviour in them."""

    name: str
    n_traces: int
    tokens: float
    shares: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class LengthResult(Section):
    """Do atoms of long and of short responses lie apart? layers: silhouette of that two-way split with its null."""

    threshold_tokens: float
    layers: tuple[LayerSeparability, ...] = ()
    groups: tuple[LengthGroup, ...] = ()
