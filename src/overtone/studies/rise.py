"""RISE: reasoning behaviours as directions, found without labels, named, and turned up and down.

Paper: Zhang et al., "Fantastic Reasoning Behaviors and Where to Find Them: Unsupervised Discovery of the Reasoning
Process", arXiv 2512.23988 (ICML 2026). A small dictionary is trained on one state per reasoning step; its decoder
vectors are looked at, named, and edited in at step boundaries while the model reasons.

Claims, in our words
(a) Behaviours are recoverable without labels: for each there is one latent that recognises it.
(b) They are separable: latents of one behaviour lie together, and the middle and later layers separate them best.
(c) They are causal: turning a behaviour's vector up or down makes its steps more or fewer, in order of strength.
(d) A direction that lowers the entropy of the next token is found in the same space; it makes the model reflect less.
(e) Latents of long and of short responses lie apart.
(f) Vectors found on one task work on another.

Scaled down (`tiny`, `small`; `paper` is not). The model: the bundled reasoner (2 million parameters, number puzzles, 6
layers) for R1-Distill-Qwen-1.5B on MATH; its parser knows the kind of every step, where the paper asks a judge. 1000
traces, not 500 of a hundred times the length; held-out puzzles for AIME25, and sums with more terms for GPQA in (f).

Deviations
1. Steps are named by their own tokens (mean state) and steered at the token before them, each with its own dictionary:
   at that token the kind of the step is not decided yet, so separability there would measure how predictable it is.
2. Layers compete on a split of their own for (a) and (c), sizes of dictionaries for (a), behaviour by behaviour and for
   the bases beside them alike; ways of weighing atoms and strengths for (c), by forecasts from first tokens of steps.
   The paper steers at the last layer, which can only act as a bias on words; where that layer wins, as it does for
   backtracking, the bias measured beside it is the same thing.
3. Strengths add multiples of the mean state norm. The paper's own edit, h - alpha v (v.h), runs beside it: it scales
   what is there, and its sign is ambiguous (formula and table of the paper disagree), so signs are set on a split.
4. Vectors and latents are chosen on traces that no number comes from; the paper does not say that it does so.
5. Controls that the paper lacks: principal axes, a random decoder, shuffled labels, random directions of equal norm, a
   supervised mean difference, a logit bias; intervals are bootstraps over problems.
6. The entropy search has a budget on its norm; without one, entropy falls without end by making states longer.

What would refute it, written before the first run
(a) mean AUROC of the best latents below 0.9 on held-out problems, or principal axes or a random decoder as good for two
behaviours; (b) no layer with a silhouette above 0 and above 95 % of permuted labels; (c) steps that do not rise with
every strength, change by less than 30 % at the ends, or by less than 4 times what random directions do; (d) random
combinations of equal norm that lower entropy as much; (e) as (b) for length; (f) an effect of the other sign. At `tiny`
nothing is refuted or confirmed: it shows that the machinery runs.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from overtone.core.catalogue import enrol
from overtone.core.report import Report
from overtone.core.study import at_scale
from overtone.discover.pipeline import discover
from overtone.discover.settings import (
    CausalSettings,
    ConfidenceSettings,
    DictionarySettings,
    DiscoverSettings,
    SamplingSettings,
)

PAPER = "Fantastic Reasoning Behaviors and Where to Find Them, arXiv 2512.23988"


def tiny() -> DiscoverSettings:
    """Seconds: few traces, one strength on either side, one control of each kind."""
    return DiscoverSettings(
        layers=(1, 3),
        workers=1,
        sampling=SamplingSettings(n_traces=96, max_new_tokens=160),
        naming=DictionarySettings(epochs=10),
        boundary=DictionarySettings(expansion=2.0, epochs=10, anchor="next"),
        causal=CausalSettings(n_problems=12, doses=(-0.3, 0.3), n_random=1, behaviours=("reflection",), layer=3),
        confidence=ConfidenceSettings(iterations=5, rows=32, n_random=3),
    )


def small() -> DiscoverSettings:
    """Minutes on two cores: what `make demo` runs."""
    return DiscoverSettings()


def paper() -> DiscoverSettings:
    """The paper's model and sizes, for a machine with its weights and 500 MATH training problems in `prompts/`."""
    latents = DictionarySettings(preset="relu_l1", expansion=2048 / 1536, epochs=20, anchor="prev")
    return DiscoverSettings(
        model="deepseek-ai/DeepSeek-R1-Distill-Qwen-1.5B",
        prompts="prompts/math_train_500.jsonl",
        layers=(27,),
        labels="keywords",
        workers=1,
        sampling=SamplingSettings(n_traces=500, max_new_tokens=16384, temperature=0.6, batch_rows=16),
        naming=latents,
        boundary=replace(latents, anchor="next"),
        causal=CausalSettings(layer=27),
        confidence=ConfidenceSettings(iterations=1000, rows=256),
    )


SCALES = {"tiny": tiny, "small": small, "paper": paper}


@enrol("studies", "rise", paper=PAPER, scales=list(SCALES))
def run(scale: str = "small", out: str | Path = "") -> Report:
    """Reasoning behaviours found without labels, named, and steered: RISE's claims (a) to (f) beside ours.

    scale: tiny, small or paper. out: folder of the run, which goes on where an earlier one stopped (default
    runs/studies/rise-SCALE). The findings carry the letters of the claims. Raises SettingError for an unknown scale,
    and whatever `discover` refuses (`paper` needs model and prompts).
    """
    report = discover(at_scale(scale, SCALES)(), out or Path("runs/studies") / f"rise-{scale}", resume=True)
    return replace(
        report,
        title="RISE: reasoning behaviours, discovered and steered",
        provenance={**report.provenance, "study": "rise", "scale": scale, "paper": PAPER},
    )
