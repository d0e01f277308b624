"""The bundled model: a small Llama that reasons in sentences about number puzzles (see docs/reasoner.md)."""

from importlib import resources
from pathlib import Path

from overtone.core.errors import ModelError
from overtone.models.hooked import HookedModel


def bundled_folder() -> Path:
    """The folder of the bundled model in the installed package. Raises ModelError with the remedy if it is absent."""
    folder = Path(str(resources.files("overtone.data").joinpath("bundled", "reasoner")))
    if not (folder / "config.json").is_file():
        raise ModelError(
            "the bundled reasoner is not in this checkout. Make it with `python tools/train_reasoner.py --out "
            "runs/reasoner` and copy runs/reasoner/model to src/overtone/data/bundled/reasoner."
        )
    return folder


def bundled_reasoner(*, device: str = "cpu") -> HookedModel:
    """The bundled model in float32 with its tokenizer. Raises ModelError if it is absent."""
    return HookedModel.load(bundled_folder(), device=device)
