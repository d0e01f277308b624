"""Models, what they read and which of it becomes rows, as a command line names them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from overtone.core.errors import SettingError
from overtone.core.settings import require

if TYPE_CHECKING:
    from overtone.activations.positions import Positions
    from overtone.data.traces import ReasoningTrace
    from overtone.models.hooked import HookedModel

BUNDLED = "bundled"


def named_model(name: str, device: str = "cpu") -> HookedModel:
    """The model of a folder or a hub name, or the bundled one."""
    from overtone.models.hooked import HookedModel
    from overtone.models.reasoner import bundled_reasoner

    return bundled_reasoner(device=device) if name == BUNDLED else HookedModel.load(name, device=device)


def require_there(*paths: str) -> None:
    """Raise SettingError for the first path that is given and does not exist: said before a model is loaded."""
    from pathlib import Path

    for path in filter(None, paths):
        require(Path(path).exists(), f"{path} does not exist. Name a file or folder that does.")


def read_traces(model: HookedModel, texts: str, traces: str, limit: int | None = None) -> list[ReasoningTrace]:
    """A file of texts or a folder of traces, as the model's token ids. Raises SettingError without a tokenizer."""
    from overtone.data.texts import encode_texts, read_texts
    from overtone.data.traces import load_traces, tokenizer_fingerprint

    if model.tokenizer is None:
        raise SettingError(f"{model.name} has no tokenizer. Give a folder that holds one.")
    if texts:
        return encode_texts(model.tokenizer, read_texts(texts, limit=limit))
    return load_traces(traces, tokenizer=tokenizer_fingerprint(model.tokenizer))[:limit]


def positions_of(rows: str, model: HookedModel) -> Positions:
    """Which positions become rows: "tokens", or an anchor of steps."""
    from overtone.activations.positions import AllTokens, StepAnchor
    from overtone.data.traces import delimiter_ids

    if rows == "tokens":
        return AllTokens(skip_special=frozenset(model.tokenizer.all_special_ids))
    return StepAnchor(rows, delimiter_ids(model.tokenizer))
