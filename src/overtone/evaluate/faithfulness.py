"""Does a model still say the same when a dictionary's reconstruction takes the place of its states?

States at one site are replaced at some positions, the model goes on from there, and its predictions are scored twice:
cross-entropy of what is true, and KL to what the untouched model predicts. Zero and mean ablation say what losing the
site costs. What is predicted is a `Task`: the next token here, a passage's neighbour in `matching`.
Sources: cross-entropy recovered as in Bricken et al. 2023 (Towards monosemanticity); KL beside it as in Gao et al.
2024, arXiv 2406.04093. Where codes were selected with gradients of the loss (g-SAE), only the KL can be believed: for a
calibrated model, excess cross-entropy equals KL on average, unless the codes know the label.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import torch
from torch import Tensor

from overtone.activations.stream import padded
from overtone.core.errors import CapabilityError, DataError, SettingError
from overtone.core.progress import track
from overtone.core.report import Finding, finite
from overtone.core.seeds import torch_generator
from overtone.core.sites import Site
from overtone.evaluate.intervals import Estimate, Resampling, ratio
from overtone.models.gradients import loss_gradients

if TYPE_CHECKING:
    from overtone.data.traces import ReasoningTrace
    from overtone.dictionaries.autoencoder import Autoencoder
    from overtone.dictionaries.dictionary import Dictionary
    from overtone.models.hooked import Call, HookedModel

CLEAN, ZERO, MEAN = "clean", "zero", "mean"
SPLICED, TRUE, DRAWN = "spliced", "true gradients", "drawn gradients"
"""Arms of `spliced_arms`."""
GRADIENTS = ("", "true", "drawn")


@dataclass(frozen=True)
class Arm:
    """What takes the place of the states: (rows, width) states and, where `gradient` asks for them, their (rows, width)
    loss gradients -> (rows, width).

    gradient: "true" for the loss of what is true, which tells the arm what that is; "drawn" for labels drawn from the
    untouched model's own predictions, the control that knows nothing of the text; "" for none.
    """

    replace: Callable[[Tensor, Tensor | None], Tensor]
    gradient: str = ""

    def __post_init__(self) -> None:
        if self.gradient not in GRADIENTS:
            raise SettingError(f"gradient={self.gradient!r}: use 'true', 'drawn' or ''.")


def spliced(dictionary: Dictionary) -> Arm:
    """The reconstruction of a dictionary that encodes states alone. Raises CapabilityError if it does not reconstruct
    the states of the one site that it reads."""
    _require_in_place(dictionary)
    return Arm(lambda x, g: dictionary.reconstruct(x))


def spliced_by_gradient(dictionary: Autoencoder, gradient: str = "true") -> Arm:
    """The reconstruction from codes that were selected with gradients; see `Arm`. Raises CapabilityError as
    `spliced`."""
    _require_in_place(dictionary)

    def replace(x: Tensor, g: Tensor | None) -> Tensor:
        assert g is not None, "an arm with gradients is given them"
        return dictionary.decode(dictionary.encode(x, {"g": g}), x)

    return Arm(replace, gradient)


def selects_by_gradients(dictionary: Dictionary) -> bool:
    """Whether a dictionary can select latents by gradients of the loss with respect to the states (g_sae)."""
    return "g" in getattr(getattr(dictionary, "score", None), "reads", ())


def spliced_arms(dictionary: Dictionary) -> dict[str, Arm]:
    """Every protocol of a dictionary at test time: `spliced`, and for one that can select by gradients also with those
    of what is true (`true gradients`), which leaks the label, and of labels drawn from the model (`drawn gradients`).
    Raises CapabilityError as `spliced`."""
    arms = {SPLICED: spliced(dictionary)}
    if selects_by_gradients(dictionary):
        for name, gradient in ((TRUE, "true"), (DRAWN, "drawn")):
            arms[name] = spliced_by_gradient(cast("Autoencoder", dictionary), gradient)
    return arms


def _require_in_place(dictionary: Dictionary) -> None:
    can = dictionary.capabilities
    if can.predicts_other_states or can.several_views:
        raise CapabilityError(
            "this dictionary does not reconstruct the states of the one site that it reads, so that nothing can take "
            "their place. Give an Arm that says what does."
        )


@dataclass(frozen=True, eq=False)
class Faithfulness:
    """Sums over the predictions of each text. ce, kl: arm -> (texts,) float64 nats, `clean`, `zero` and `mean` among
    the arms; tokens: (texts,) number of predictions; groups: what the bootstrap draws again."""

    ce: Mapping[str, np.ndarray]
    kl: Mapping[str, np.ndarray]
    tokens: np.ndarray
    groups: tuple[str, ...]
    seed: int = 0

    def cross_entropy(self, arm: str) -> Estimate:
        """Nats per prediction of what is true."""
        return self._per_prediction(self._of(self.ce, arm))

    def divergence(self, arm: str) -> Estimate:
        """Nats per prediction of KL(untouched || arm), 0 or more."""
        return self._per_prediction(self._of(self.kl, arm))

    def difference(self, first: str, second: str) -> Estimate:
        """Nats per prediction of KL, first - second, paired by text."""
        return self._per_prediction(self._of(self.kl, first) - self._of(self.kl, second))

    def recovered(self, arm: str, *, floor: str = ZERO) -> Estimate:
        """Share of the cross-entropy that losing the site costs (the `floor`, `zero` or `mean`) which the arm saves: 1
        is the untouched model, 0 the ablation, below 0 worse than it."""
        loss, clean, bottom = (self._of(self.ce, name) for name in (arm, CLEAN, floor))
        saved, cost = self._series(np.stack([bottom - loss, bottom - clean], 1)).T
        return self._drawn.estimate(ratio(saved, cost))

    def label_knowledge(self, arm: str) -> Estimate:
        """Nats per prediction by which the arm does better on what is true than its KL lets expect, KL - (its cross-
        entropy - the untouched model's): about 0 where a calibrated model is only disturbed, up to its whole loss where
        the arm was told the labels."""
        excess = self._of(self.ce, arm) - self._of(self.ce, CLEAN)
        return self._per_prediction(self._of(self.kl, arm) - excess)

    def table(self) -> list[dict[str, Any]]:
        """One row of plain data per arm, the untouched model first: `cross_entropy`, `kl`, `recovered` (of what zero
        ablation costs), `recovered_mean` (of what mean ablation costs) and `label_knowledge`, each an Estimate."""
        return [{"name": name, **{key: finite(asdict(made(name))) for key, made in self._columns.items()}}
                for name in self.ce]  # fmt: skip

    @property
    def _columns(self) -> dict[str, Callable[[str], Estimate]]:
        return {
            "cross_entropy": self.cross_entropy, "kl": self.divergence, "recovered": self.recovered,
            "recovered_mean": lambda arm: self.recovered(arm, floor=MEAN), "label_knowledge": self.label_knowledge,
        }  # fmt: skip

    def findings(self) -> tuple[Finding, ...]:
        """Of the arms of `spliced_arms`: whether the reconstruction disturbs less than the mean state, and whether
        codes that true gradients selected know the label, more than those of drawn labels do."""
        gap, kl = self.difference(SPLICED, MEAN), self.divergence(SPLICED)
        unit = {"unit": "nats per prediction", "n": kl.n, "n_of": "groups of texts"}
        found = [
            Finding(
                "spliced.kl", "its reconstruction disturbs predictions less than the mean state does", kl.value,
                holds=None if gap.interval is None else gap.high < 0, better="lower", interval=kl.interval,
                control=self.divergence(MEAN).value, control_name="the mean state", **unit,
            )
        ]  # fmt: skip
        if TRUE in self.kl:
            knows, drawn = self.label_knowledge(TRUE), self.label_knowledge(DRAWN)
            found.append(
                Finding(
                    "spliced.leak", "codes that true gradients selected know the label", knows.value,
                    holds=None if knows.interval is None else knows.low > drawn.high, interval=knows.interval,
                    control=drawn.value, control_name="labels drawn from the model", **unit,
                    note="KL minus excess cross-entropy; codes that know the label must not be probed",
                )
            )  # fmt: skip
        return tuple(found)

    @property
    def _drawn(self) -> Resampling:
        return Resampling.over(self.groups, rng=np.random.default_rng(self.seed), draws=1000)

    def _series(self, columns: np.ndarray) -> np.ndarray:
        return self._drawn.sums(columns, self.groups)

    def _per_prediction(self, sums: np.ndarray) -> Estimate:
        total, tokens = self._series(np.stack([sums, self.tokens], 1)).T
        return self._drawn.estimate(ratio(total, tokens))

    def _of(self, sums: Mapping[str, np.ndarray], arm: str) -> np.ndarray:
        if arm not in sums:
            raise SettingError(f"there is no arm {arm!r}; there are {', '.join(sums)}.")
        return sums[arm]


@dataclass(frozen=True, eq=False)
class Batch:
    """Some texts: members, their numbers; tokens, real: as for a model, padded on the right; places: (batch, seq) bool,
    where states are replaced; rows: (predictions,) which of the texts each prediction is about."""

    members: list[int]
    tokens: Tensor
    real: Tensor
    places: Tensor
    rows: Tensor


class Task(ABC):
    """What a model predicts, by which it is judged."""

    @abstractmethod
    def batches(self, traces: Sequence[ReasoningTrace]) -> Iterator[Batch]:
        """The texts, some at a time."""

    @abstractmethod
    def predictions(self, model: HookedModel, batch: Batch) -> Tensor:
        """(predictions, options) float32 log-probabilities; edits in force apply."""

    @abstractmethod
    def targets(self, batch: Batch) -> Tensor:
        """(predictions,) the true options."""

    @abstractmethod
    def slopes(self, model: HookedModel, batch: Batch, site: Site, labels: Tensor) -> Tensor:
        """(places, width) gradients, with respect to the states at the batch's places, of the mean cross-entropy of
        labels (predictions,) over a text (or over what is predicted together)."""


def faithfulness(
    model: HookedModel, traces: Sequence[ReasoningTrace], site: Site | str, arms: Mapping[str, Arm], *,
    part: str = "response", tokens_per_pass: int = 4096, seed: int = 0, quiet: bool | None = True,
) -> Faithfulness:  # fmt: skip
    """`judged` by next tokens, predicted from where states are replaced.

    part: at which positions, "response" (those whose states a dictionary of responses was trained on) or "all". Raises
    as `judged`, and ModelError for a model without a vocabulary head.
    """
    return judged(model, traces, site, arms, NextTokens(part, tokens_per_pass), seed=seed, quiet=quiet)


def judged(
    model: HookedModel, traces: Sequence[ReasoningTrace], site: Site | str, arms: Mapping[str, Arm], task: Task, *,
    seed: int = 0, quiet: bool | None = True,
) -> Faithfulness:  # fmt: skip
    """Cross-entropy and KL of every arm, of zero ablation and of mean ablation, on the same predictions.

    traces: texts as token ids; site: where states are replaced; task: at which positions, and what is predicted. Mean
    ablation puts the mean of these states of all given texts. seed: of drawn labels and of the bootstrap, which is over
    the traces' groups; quiet: show no progress (None: as the process does). Raises SettingError for a reserved or
    missing arm, DataError if nothing is predicted.
    """
    if not arms or {CLEAN, ZERO, MEAN} & set(arms):
        raise SettingError(f"arms {list(arms)}: give at least one arm, not named clean, zero or mean.")
    site = model.check(site)
    batches = list(task.batches(traces))
    if not any(len(batch.rows) for batch in batches):
        raise DataError("no prediction is made from the chosen positions. Give texts of two tokens or more.")
    mean = _mean_state(model, batches, site)
    zero = Arm(lambda x, g: torch.zeros_like(x))
    every = {ZERO: zero, MEAN: Arm(lambda x, g: mean.to(x.dtype).expand_as(x)), **arms}
    generator = torch_generator(seed, "drawn labels")
    ce, kl = ({name: np.zeros(len(traces)) for name in (CLEAN, *every)} for _ in range(2))
    tokens = np.zeros(len(traces))
    for batch in track(batches, f"splicing at {site}", quiet=quiet):
        tokens[batch.members] = batch.rows.bincount(minlength=len(batch.members)).numpy()
        for name, (loss, divergence) in _scores(model, batch, site, every, task, generator):
            ce[name][batch.members], kl[name][batch.members] = loss, divergence
    return Faithfulness(ce, kl, tokens, tuple(t.group or str(t.document) for t in traces), seed)


@dataclass(frozen=True)
class NextTokens(Task):
    """The next token, from positions of a `part` of each text: "response" or "all"."""

    part: str = "response"
    tokens_per_pass: int = 4096

    def __post_init__(self) -> None:
        if self.part not in ("response", "all"):
            raise SettingError(f"part={self.part!r}: use 'response' or 'all'.")

    def batches(self, traces: Sequence[ReasoningTrace]) -> Iterator[Batch]:
        """Texts of similar length together."""
        order = sorted(range(len(traces)), key=lambda i: len(traces[i].tokens))
        while order:
            fits = max(1, self.tokens_per_pass // len(traces[order[0]].tokens))
            while fits > 1 and len(traces[order[min(fits, len(order)) - 1]].tokens) * fits > self.tokens_per_pass:
                fits -= 1
            members, order = order[:fits], order[fits:]
            tokens, real = padded([traces[m].tokens for m in members])
            places = real.clone()
            places[:, :-1] &= real[:, 1:]
            places[:, -1] = False
            if self.part == "response":
                starts = torch.tensor([len(traces[m].prompt_ids) for m in members])
                places &= torch.arange(tokens.shape[1]) >= starts[:, None]
            yield Batch(members, tokens, real, places, places.nonzero()[:, 0])

    def predictions(self, model: HookedModel, batch: Batch) -> Tensor:
        """Over the vocabulary."""
        logits = model.logits(batch.tokens, batch.real)
        return logits[batch.places.to(logits.device)].float().log_softmax(1)

    def targets(self, batch: Batch) -> Tensor:
        """What comes next."""
        return batch.tokens[:, 1:][batch.places[:, :-1]]

    def slopes(self, model: HookedModel, batch: Batch, site: Site, labels: Tensor) -> Tensor:
        """Of each text's mean loss over its tokens."""
        tokens = batch.tokens.clone()
        tokens[:, 1:][batch.places[:, :-1]] = labels.cpu()
        found = loss_gradients(model, batch.tokens, batch.real, [site], reduction="mean", labels=tokens)
        return found.gradients[site][batch.places.to(model.device)]


def _mean_state(model: HookedModel, batches: Sequence[Batch], site: Site) -> Tensor:
    total, count = torch.zeros(model.width(site), dtype=torch.float64, device=model.device), 0
    for batch in batches:
        states = model.read(batch.tokens, batch.real, [site])[site][batch.places.to(model.device)]
        total, count = total + states.double().sum(0), count + len(states)
    return total / count


def _scores(
    model: HookedModel, batch: Batch, site: Site, arms: Mapping[str, Arm], task: Task, generator: torch.Generator
) -> Iterator[tuple[str, tuple[np.ndarray, np.ndarray]]]:
    """(arm, (summed cross-entropy, summed KL) of each text)."""
    places = batch.places.to(model.device)
    clean = task.predictions(model, batch)
    targets = task.targets(batch).to(clean.device)
    yield CLEAN, (_summed(_losses(clean, targets), batch), np.zeros(len(batch.members)))
    slopes = {}
    for kind in dict.fromkeys(arm.gradient for arm in arms.values() if arm.gradient):
        drawn = torch.multinomial(clean.exp().cpu(), 1, generator=generator)[:, 0] if kind == "drawn" else targets
        slopes[kind] = task.slopes(model, batch, site, drawn)
    for name, arm in arms.items():
        given = slopes.get(arm.gradient)

        def edit(states: Tensor, call: Call, arm: Arm = arm, given: Tensor | None = given) -> Tensor:
            out = states.clone()
            out[places] = arm.replace(states[places], given).to(states)  # a dictionary may be elsewhere
            return out

        with model.editing({site: edit}):
            patched = task.predictions(model, batch)
        divergence = (clean.exp() * (clean - patched)).sum(1)
        yield name, (_summed(_losses(patched, targets), batch), _summed(divergence, batch))


def _losses(predictions: Tensor, targets: Tensor) -> Tensor:
    return -predictions.gather(1, targets[:, None])[:, 0]


def _summed(values: Tensor, batch: Batch) -> np.ndarray:
    found = torch.zeros(len(batch.members), dtype=torch.float64)
    return found.index_add_(0, batch.rows, values.double().cpu()).numpy()
