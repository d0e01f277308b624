"""Models and tokenizers from a folder or the hub, and what a user reads when that fails."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
import transformers
from safetensors import SafetensorError
from torch import nn

from overtone.core.devices import usable
from overtone.core.errors import ModelError, SettingError, nearest

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
TOKENIZER_FILES = ("tokenizer.json", "tokenizer.model", "vocab.json", "vocab.txt", "spiece.model")


def load_model(
    name_or_folder: str | Path, *, dtype: str = "float32", device: str = "cpu"
) -> tuple[nn.Module, Any, str]:
    """(model in evaluation mode, tokenizer or None, name). Raises ModelError and SettingError as `HookedModel.load`."""
    if dtype not in DTYPES:
        raise SettingError(
            f"dtype={dtype!r} is not supported.{nearest(dtype, DTYPES)} Use one of: {', '.join(DTYPES)}."
        )
    usable(device)
    name, is_folder = _where(name_or_folder)
    options: dict[str, Any] = {"local_files_only": is_folder}
    config = _retold(name, is_folder, lambda: transformers.AutoConfig.from_pretrained(name, **options))
    loader = getattr(transformers, _class_for(config))
    model, info = _retold(
        name,
        is_folder,
        lambda: loader.from_pretrained(name, config=config, dtype=DTYPES[dtype], output_loading_info=True, **options),
    )
    if missing := sorted(info["missing_keys"]):
        raise ModelError(
            f"{name} lacks {len(missing)} of its weights (first: {missing[0]}). Fetch or save the model again."
        )
    return model.to(device).eval(), _tokenizer(name, is_folder), Path(name).resolve().name if is_folder else name


def _where(name_or_folder: str | Path) -> tuple[str, bool]:
    """(name, is it a folder). A path that leads nowhere is an error here, not a question to the hub."""
    path = Path(name_or_folder).expanduser()
    name = str(name_or_folder)
    if path.is_dir():
        if not (path / "config.json").is_file():
            raise ModelError(
                f"{name} is no model folder: it holds no config.json. Give a folder made by save_pretrained."
            )
        return str(path), True
    if isinstance(name_or_folder, Path) or path.is_absolute() or name.startswith((".", "~")) or name.count("/") > 1:
        raise ModelError(
            f"there is no folder {name}. Give an existing model folder, or a hub name like gpt2 or org/model."
        )
    return name, False


def _class_for(config: Any) -> str:
    """The auto class that restores every weight of the checkpoint, vocabulary head included."""
    for architecture in getattr(config, "architectures", None) or ():
        if architecture.endswith(("ForCausalLM", "LMHeadModel", "ForConditionalGeneration")):
            return "AutoModelForCausalLM"
        if architecture.endswith(("ForMaskedLM", "ForPreTraining")):
            return "AutoModelForMaskedLM"
        return "AutoModel"
    return "AutoModelForCausalLM"


def _retold(name: str, is_folder: bool, action: Any) -> Any:
    """Run a loader; what fails is told in one line at the level of the user's call."""
    try:
        with _quiet(is_folder):
            return action()
    except (OSError, ValueError, RuntimeError, KeyError, ImportError, SafetensorError) as error:
        reason = next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)[:200]
        if is_folder:
            raise ModelError(f"{name} cannot be loaded as a model: {reason} Fetch or save the model again.") from None
        raise ModelError(
            f"{name} is neither a folder nor a model that can be had from here: {reason} "
            "Download it where there is a network (`hf download NAME --local-dir FOLDER`) and give the folder."
        ) from None


@contextmanager
def _quiet(is_folder: bool) -> Iterator[None]:
    """No progress bar for reading from disk; downloads keep theirs. The library's setting is restored."""
    shown = transformers.utils.logging.is_progress_bar_enabled()
    if is_folder:
        transformers.utils.logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            transformers.utils.logging.enable_progress_bar()


def _tokenizer(name: str, is_folder: bool) -> Any:
    """The tokenizer beside the model, or None where there is none."""
    if is_folder and not any((Path(name) / file).exists() for file in TOKENIZER_FILES):
        return None
    try:
        return transformers.AutoTokenizer.from_pretrained(name, local_files_only=is_folder)
    except (OSError, ValueError, ImportError, KeyError) as error:
        if not is_folder:
            return None
        reason = str(error).strip().split("\n")[0][:200]
        raise ModelError(f"the tokenizer in {name} cannot be read: {reason} Save it again beside the model.") from None
