"""What a format is: a small class per file in kinds/, recognised from the files it is handed, read and written."""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

from overtone.core.errors import CapabilityError, StoreError
from overtone.formats.choices import Choices
from overtone.formats.plain import Plain, Rule


@dataclass(frozen=True, eq=False)
class Foreign:
    """What was read: the canonical form, facts (plain data: `site`, `model`, what the format itself notes), and notes
    for the user, one sentence each."""

    plain: Plain
    facts: dict[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


class Format:
    """Base of a format. Enrol with `@enrol("formats", NAME, ...)` in a file of kinds/.

    `collects`: one folder holds several dictionaries, a file each; `writes`: False for formats that are only read;
    `rowwise`: can say that each row is normalised by itself.
    """

    name: ClassVar[str] = ""
    writes: ClassVar[bool] = True
    collects: ClassVar[bool] = False
    rowwise: ClassVar[bool] = False

    def recognises(self, place: Path) -> bool:
        """True if a file or folder looks like this format, judged by names and the first bytes, not by content."""
        raise NotImplementedError

    def read(self, place: Path, choices: Choices) -> Foreign:
        """The dictionary of a file or folder. Raises StoreError if it is damaged, SettingError if two readings are
        possible and `choices` does not choose, CapabilityError if overtone has no such part."""
        raise NotImplementedError

    def write(self, plain: Plain, folder: Path, facts: Mapping[str, Any]) -> list[str]:
        """Fill an empty folder; returns notes on what changed form or was lost. Raises CapabilityError if this format
        cannot hold such a dictionary, with the ways out."""
        raise NotImplementedError

    def beside(self, place: Path) -> Path:
        """Where overtone's own file lies that keeps what this format cannot hold."""
        return (place if place.is_dir() else place.parent) / "overtone.json"

    def refuse(self, rule: Rule, *, holds: str) -> CapabilityError:
        """The error that says which rules this format holds, and the ways out."""
        out = "write two one-sided latents for each (--split-signs)" if rule.signed else "choose another format"
        return CapabilityError(
            f"{self.name} holds {holds}; this dictionary has {rule.name}. Either {out}, or keep it with --to overtone."
        )


def read_json(path: Path) -> dict[str, Any]:
    """The object in a JSON file. Raises StoreError if it is missing or is none."""
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise StoreError(f"{path} cannot be read as JSON ({error}). Fetch or write the folder again.") from None
    if not isinstance(data, dict):
        raise StoreError(f"{path} holds no JSON object. Fetch or write the folder again.")
    return data


def read_safetensors(path: Path) -> dict[str, Any]:
    """The tensors of a safetensors file by name. Raises StoreError if it is missing or damaged."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(path)
    except (OSError, SafetensorError) as error:
        raise StoreError(f"{path} cannot be read as safetensors ({error}). Fetch or write it again.") from None


def read_weights_only(path: Path) -> dict[str, Any]:
    """What a .pt file holds if that is tensors and plain data. Raises StoreError for anything else: nothing in it is
    run."""
    import torch

    try:
        data = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises UnpicklingError, RuntimeError, EOFError and more for foreign bytes
        reason = str(error).strip().split("\n")[0][:150]
        raise StoreError(
            f"{path} is not a file of tensors and plain data ({reason}). A .pt file that holds code is never loaded: "
            "save its state dict with the library that made it, or convert it there to safetensors."
        ) from None
    if not isinstance(data, dict):
        raise StoreError(f"{path} holds a {type(data).__name__}, not a state dict. Save the state dict instead.")
    return data


def taken(
    tensors: Mapping[str, Any], name: str, shape: tuple[int | None, ...], where: Path, *, bound: bool = False
) -> Any:
    """The floating tensor of a name; None in the shape: any length. Raises StoreError if it is missing, of another
    shape or type, or not finite; bound: infinity is allowed, as in a threshold that nothing passes."""
    import torch

    floats = torch.float16, torch.bfloat16, torch.float32, torch.float64
    if name not in tensors:
        raise StoreError(f"{where} has no tensor {name!r}; it holds {', '.join(sorted(tensors))}. Is it complete?")
    tensor = tensors[name]
    if not isinstance(tensor, torch.Tensor) or tensor.dtype not in floats:
        found = str(getattr(tensor, "dtype", type(tensor).__name__)).removeprefix("torch.")
        raise StoreError(f"{where}: {name!r} is {found}, expected a tensor of floating numbers. Is it damaged?")
    fits = len(shape) == tensor.ndim and all(n in (size, None) for n, size in zip(shape, tensor.shape, strict=True))
    if not fits or not tensor.numel():
        wanted = f"({', '.join('any' if n is None else str(n) for n in shape)})"
        raise StoreError(f"{where}: {name!r} has shape {tuple(tensor.shape)}, expected {wanted}. Is it damaged?")
    bad = int((tensor.isnan() if bound else ~tensor.isfinite()).sum())
    if bad:
        raise StoreError(f"{where}: {bad} of {tensor.numel()} numbers of {name!r} are NaN or infinite. Fetch it again.")
    return tensor


def nothing_else(tensors: Mapping[str, Any], known: Iterable[str], where: Path, what: str) -> None:
    """Raise StoreError for a tensor beside the known ones, which would be a part that is not known; what: a phrase for
    what has the known ones only."""
    if extra := sorted(tensors.keys() - set(known)):
        raise StoreError(f"{where} holds {', '.join(extra)}, which overtone does not know how to apply in {what}.")


_TOLD = {int: "a whole number above 0", bool: "true or false", str: "a text", dict: "an object"}


def said(settings: Mapping[str, Any], name: str, kind: type, where: Path, default: Any = ...) -> Any:
    """What a configuration says under a name; the default where it says nothing, or null. Raises StoreError for
    something else than `kind`, or for nothing where there is no default."""
    value = settings.get(name)
    if value is None and default is not ...:
        return default
    if value is None:
        raise StoreError(f"{where} does not say {name}, which is {_TOLD[kind]}. Is it complete, and of this format?")
    if not isinstance(value, kind) or isinstance(value, bool) != (kind is bool) or (kind is int and value < 1):
        raise StoreError(
            f"{where} says {name}={' '.join(repr(value).split())[:80]}; expected {_TOLD[kind]}. Is it damaged?"
        )
    return value
