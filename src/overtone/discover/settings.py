"""Settings of the main job. Nothing heavy is imported here: the command line reads its options from these classes."""

from __future__ import annotations

from dataclasses import dataclass, field

from overtone.core.settings import Settings, require


@dataclass(frozen=True)
class SamplingSettings(Settings):
    """How traces are drawn from the model."""

    n_traces: int = 1000
    """Traces to sample for discovery; two thirds train dictionaries and vectors, one third selects, split by
    problem."""
    max_new_tokens: int = 384
    """Longest response, in tokens."""
    temperature: float = 1.0
    """Sampling temperature; 0 is greedy."""
    batch_rows: int = 300
    """Traces generated at once."""

    def __post_init__(self) -> None:
        require(self.n_traces >= 16, f"n_traces={self.n_traces}: three splits need at least 16 traces.")
        require(self.max_new_tokens >= 1, f"max_new_tokens={self.max_new_tokens}: ask for at least 1.")
        require(self.temperature >= 0, f"temperature={self.temperature}: use 0 (greedy) or more.")
        require(self.batch_rows >= 1, f"batch_rows={self.batch_rows}: use at least 1.")


@dataclass(frozen=True)
class DictionarySettings(Settings):
    """A dictionary that is trained on the steps of each layer, read at one anchor."""

    preset: str = "relu_l1"
    """Name of a dictionary preset (`overtone list dictionaries`)."""
    expansion: float = 0.5
    """Latents per dimension of the site."""
    active: int = 4
    """Active latents per step, for presets that fix their number."""
    epochs: int = 40
    """Passes over the steps."""
    anchor: str = "mean"
    """Where a step is read: mean (over its tokens), first_k, prev (its end) or next (the token before it)."""

    def __post_init__(self) -> None:
        anchors = ("first_k", "prev", "mean", "next")
        require(self.anchor in anchors, f"anchor={self.anchor!r}: use one of {', '.join(anchors)}.")
        require(self.expansion > 0, f"expansion={self.expansion}: use a positive number of latents per dimension.")
        require(self.epochs >= 1 and self.active >= 1, f"epochs={self.epochs}, active={self.active}: use at least 1.")


def _at_boundaries() -> DictionarySettings:
    """RISE's own choice, a ReLU dictionary with a sparsity penalty, on the states that decide the coming step."""
    return DictionarySettings(expansion=2.0, anchor="next")


@dataclass(frozen=True)
class CausalSettings(Settings):
    """How vectors are tested while the model generates."""

    n_problems: int = 300
    """Held-out problems per condition."""
    doses: tuple[float, ...] = ()
    """Strengths beside 0, as multiples of the mean norm of the state that is edited; negative suppresses. Empty: four
    for each behaviour, chosen on the selection split."""
    n_random: int = 2
    """Random directions of equal norm that every effect is held against."""
    behaviours: tuple[str, ...] = ()
    """Behaviours to steer; empty: every behaviour that the model shows and that is not the whole trace's frame."""
    layer: int = -1
    """Layer to steer at; -1 chooses it on the selection split."""

    def __post_init__(self) -> None:
        require(self.n_problems >= 4, f"n_problems={self.n_problems}: intervals need at least 4 problems.")
        both = not self.doses or (min(self.doses) < 0 < max(self.doses) and 0 not in self.doses)
        require(both, f"doses={self.doses}: give a negative and a positive strength, or none; 0 is always measured.")
        require(len(set(self.doses)) == len(self.doses), f"doses={self.doses}: give every strength once.")
        require(self.n_random >= 1, f"n_random={self.n_random}: an effect needs at least one random control.")
        require(self.layer >= -1, f"layer={self.layer}: give a layer counted from 0, or -1 to choose one.")


@dataclass(frozen=True)
class ConfidenceSettings(Settings):
    """How confidence vectors are searched: output entropy is minimised over the decoder space under a norm budget."""

    iterations: int = 150
    """Steps of Adam (the paper: 1000)."""
    rows: int = 64
    """Anchors per step (the paper: 256)."""
    budget: float = 0.25
    """Norm of the added vector, as a multiple of the mean norm of the state."""
    n_random: int = 100
    """Random score vectors of equal norm to compare with."""

    def __post_init__(self) -> None:
        require(self.iterations >= 1 and self.rows >= 1, "iterations and rows: use at least 1.")
        require(self.budget > 0, f"budget={self.budget}: use a positive multiple of the mean norm.")


@dataclass(frozen=True)
class DiscoverSettings(Settings):
    """Everything that decides the result of `overtone discover`."""

    model: str = "bundled"
    """`bundled`, a folder in transformers format, or a hub name."""
    prompts: str = ""
    """File of prompts (.jsonl, .json, .txt); the bundled reasoner makes its own when empty."""
    layers: tuple[int, ...] = ()
    """Layers to decompose; empty: all, or eight spread evenly in a deeper model."""
    labels: str = "auto"
    """What names the steps: `truth` (bundled reasoner only), `keywords`, `judge` or `auto`."""
    seed: int = 0
    """Seed of everything random."""
    workers: int = 2
    """Processes that generate in the causal part (each holds its own copy of the model)."""
    sampling: SamplingSettings = field(default_factory=SamplingSettings)
    naming: DictionarySettings = field(default_factory=DictionarySettings)
    """The dictionary in which behaviours are found and named."""
    sizes: tuple[float, ...] = (0.075, 0.15)
    """Other sizes of the naming dictionary, in latents per dimension, that compete with it, on the selection split, to
    recognise behaviours by single latents."""
    boundary: DictionarySettings = field(default_factory=_at_boundaries)
    """The dictionary of step boundaries (anchor `next`), whose atoms make the vectors that steer."""
    causal: CausalSettings = field(default_factory=CausalSettings)
    confidence: ConfidenceSettings = field(default_factory=ConfidenceSettings)

    def __post_init__(self) -> None:
        sources = ("auto", "truth", "keywords", "judge")
        require(self.labels in sources, f"labels={self.labels!r}: use one of {', '.join(sources)}.")
        require(self.workers >= 1, f"workers={self.workers}: use at least 1 process.")
        require(self.boundary.anchor == "next", "boundary.anchor: vectors that steer are made where they act, at next.")
        require(all(size > 0 for size in self.sizes), f"sizes={self.sizes}: use positive numbers of latents.")
        require(all(layer >= 0 for layer in self.layers), f"layers={self.layers}: layers count from 0.")
        require(
            self.model == "bundled" or bool(self.prompts), "a model of your own needs --prompts FILE.jsonl as well."
        )
